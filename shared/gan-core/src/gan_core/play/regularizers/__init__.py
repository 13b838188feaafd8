"""Regularizers of adversaries: functions that compute the terms, and settings classes for recipes.

A regularizer that does not apply to a discriminator raises a `RecipeError` with the reason.
"""

from gan_core.play.regularizers.base import (
    Generation,
    Lazy,
    Penalty,
    Regularized,
    Regularizer,
    Turn,
    penalties,
    uncompiled,
)
from gan_core.play.regularizers.features import (
    FeatureMatching,
    MinibatchDiscrimination,
    MinibatchStddev,
    PullAway,
    features_of,
)
from gan_core.play.regularizers.gradient import (
    R1,
    R2,
    Dragan,
    GradientPenalty,
    PathLength,
    dragan_penalty,
    gradient_norm,
    gradient_penalty,
    path_lengths,
    zero_centred_penalty,
)
from gan_core.play.regularizers.opponents import LabelSmoothing, Replay, Unrolled
from gan_core.play.regularizers.views import AdaptiveAugmentation, Consistency, DiffAugment, InstanceNoise
from gan_core.play.regularizers.weights import Orthogonal, SpectralNorm, WeightClipping, orthogonality

__all__ = [
    "R1",
    "R2",
    "REGULARIZERS",
    "AdaptiveAugmentation",
    "Consistency",
    "DiffAugment",
    "Dragan",
    "FeatureMatching",
    "Generation",
    "GradientPenalty",
    "InstanceNoise",
    "LabelSmoothing",
    "Lazy",
    "MinibatchDiscrimination",
    "MinibatchStddev",
    "Orthogonal",
    "PathLength",
    "Penalty",
    "PullAway",
    "Regularized",
    "Regularizer",
    "Replay",
    "SpectralNorm",
    "Turn",
    "Unrolled",
    "WeightClipping",
    "dragan_penalty",
    "features_of",
    "gradient_norm",
    "gradient_penalty",
    "orthogonality",
    "path_lengths",
    "penalties",
    "uncompiled",
    "zero_centred_penalty",
]

REGULARIZERS: dict[str, type[Regularizer]] = {
    kind.name: kind
    for kind in (
        MinibatchStddev,
        MinibatchDiscrimination,
        SpectralNorm,
        WeightClipping,
        Orthogonal,
        GradientPenalty,
        Dragan,
        R1,
        R2,
        PathLength,
        Consistency,
        InstanceNoise,
        DiffAugment,
        AdaptiveAugmentation,
        LabelSmoothing,
        Replay,
        FeatureMatching,
        PullAway,
        Unrolled,
    )
}
"""Regularizers by name, in the order in which they are applied: layers are added before they are normalised."""
