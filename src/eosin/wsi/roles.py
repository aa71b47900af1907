"""What a class is to a pathologist, read from its name: the same tissue is called by many names."""

from __future__ import annotations

import re
from typing import Literal

Role = Literal["tumour", "stroma", "lymphocytes", "necrosis", "background", "other"]

_NAMES: dict[Role, frozenset[str]] = {
    "tumour": frozenset(
        {
            *("tumour", "tumours", "tum", "te", "tumour epithelium", "tumour epithelial tissue", "tumour cells"),
            *("cancer", "carcinoma", "invasive carcinoma", "invasive tumour", "neoplastic", "malignant"),
        }
    ),
    "stroma": frozenset(
        {"stroma", "str", "tas", "tumour stroma", "tumour associated stroma", "tumour associated stroma tissue"}
    ),
    "lymphocytes": frozenset(
        {
            *("lymphocyte", "lymphocytes", "lym", "til", "tils", "lymphocytic infiltrate"),
            *("immune", "immune cells", "immune infiltrate", "inflammatory", "inflammation"),
        }
    ),
    "necrosis": frozenset({"necrosis", "nec", "necrotic", "necrotic tissue"}),
    "background": frozenset({"background", "white background", "glass", "ignore"}),
    "other": frozenset({"other", "others", "rest", "other tissue"}),
}


def role_of(name: str) -> Role | None:
    """Say what a class is; upper and lower case, British and American spelling, and ``-_.`` make no difference.

    Returns:
        None for a name that says nothing here, such as "gland".
    """
    plain = re.sub(r"[\s._+-]+", " ", name.casefold()).strip().replace("tumor", "tumour")
    return next((role for role, names in _NAMES.items() if plain in names), None)
