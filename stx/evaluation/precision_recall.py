"""Improved precision and recall (arXiv 1904.06991), by torch-fidelity, with k = 3 nearest neighbours; higher is better.

    precision   the share of generated images that lie in a ball around some real one,
                of radius the distance to its k-th real neighbour
    recall      the share of real images that lie in such a ball around some generated one

Both depend on the two set sizes; the protocol states them.
"""

from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

from stx.evaluation.base import Extracted

NEIGHBOURS = 3  # stx/stages/evaluate.py refuses fewer images than this needs
_BLOCK = 2048


def compute(generated: Extracted, real: Extracted) -> dict[str, float]:
    """{"precision": ..., "recall": ...}. Distances are made block by block, not as one matrix of all pairs."""
    result = prc_features_to_metric(
        generated.features,
        real.features,
        prc_neighborhood=NEIGHBOURS,
        prc_batch_size=_BLOCK,
        save_cpu_ram=True,
        verbose=False,
    )
    return {"precision": result[KEY_METRIC_PRECISION], "recall": result[KEY_METRIC_RECALL]}
