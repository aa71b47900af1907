"""Whether a slide looks like what a model was trained on, said in lines for a person."""

from __future__ import annotations

import numpy as np

from eosin.predictor.domain import QUANTITIES, Domain, Values, measure

__all__ = ["Domain", "beyond", "measure"]

FAR = 3.0
"""How many standard deviations of training tiles the mean of a slide may lie from theirs."""

_SAME_MPP = 0.02  # as for the reader of slides, which takes a level for the asked one up to this difference
_WORDS = {
    "red": "optical density of red",
    "green": "optical density of green",
    "blue": "optical density of blue",
    "blur": "sharpness (log variance of the Laplacian)",
}


def beyond(domain: Domain | None, measured: Values, mpp: float) -> list[str]:
    """Tell in what a slide lies more than three standard deviations from the training tiles.

    The size of a pixel is one for all training tiles, so that any other, by more than 2 %, lies beyond.

    Args:
        domain: of the model's card; None knows nothing and finds nothing.
        measured: of the slide's tiles with tissue, ``[N, 4]`` as :func:`measure` gives it; their mean is judged.
        mpp: micrometres per pixel that the slide was predicted at, or scanned at if that is coarser.

    Returns:
        One line for each quantity that lies beyond, with its value and the mean and deviation of training.
    """
    if domain is None:
        return []
    lines = []
    rows = measured[~np.isnan(measured).any(1)]
    for name, value in zip(QUANTITIES, rows.mean(0).tolist() if len(rows) else (), strict=False):
        trained = getattr(domain, name)
        if abs(value - trained.mean) > FAR * trained.sd:
            far = f"{abs(value - trained.mean) / trained.sd:.1f} sd" if trained.sd else "more than any sd"
            lines.append(
                f"out of domain: {_WORDS[name]} is {value:.3f}, {far} from the training tiles"
                f" (mean {trained.mean:.3f}, sd {trained.sd:.3f})"
            )
    if domain.mpp is not None and abs(mpp / domain.mpp - 1) > _SAME_MPP:
        lines.append(f"out of domain: {mpp:.4g} um per pixel; the training tiles have {domain.mpp:.4g} (sd 0)")
    return lines
