"""What eosin does, one function a verb; the command line and ``import eosin`` offer the same ones.

``compare`` is in ``eosin.verbs.compare``, since its imports are heavy; those of the others wait inside them.
"""

from eosin.verbs.about import doctor, list_known
from eosin.verbs.data import check_data, describe_data, import_data, split_data
from eosin.verbs.export import export
from eosin.verbs.models import report, score
from eosin.verbs.predict import predict, survey_slides
from eosin.verbs.train import demo, run

__all__ = [
    "check_data",
    "demo",
    "describe_data",
    "doctor",
    "export",
    "import_data",
    "list_known",
    "predict",
    "report",
    "run",
    "score",
    "split_data",
    "survey_slides",
]
