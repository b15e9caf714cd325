"""Who takes part."""

from __future__ import annotations

from importlib import import_module

from bench.peers.protocol import Column, Contender, Fit

REFERENCE = "plain"
"""Full fine-tuning, whose accuracy the marks are taken from."""
OURS, OURS_EVERYTHING = "ours", "ours-everything"


def _loaded(module: str, function: str = "fit") -> Fit:
    fit: Fit = getattr(import_module(f"bench.peers.{module}"), function)
    return fit


CONTENDERS = (
    Contender(REFERENCE, "plain PyTorch loop, full fine-tuning", lambda: _loaded("plain"), ("torch",)),
    Contender(OURS, "Snowmelt", lambda: _loaded("ours"), ("snowmelt",), (Column.DEFAULTS,), rival=False),
    Contender(
        OURS_EVERYTHING,
        "Snowmelt, everything unfrozen as the plain loop",
        lambda: _loaded("ours", "fit_everything"),
        ("snowmelt",),
        (Column.MATCHED,),
        rival=False,
    ),
    Contender("layer-decay", "layer-wise rate decay, as timm's", lambda: _loaded("layer_decay"), ("torch",)),
    Contender("fastai", "fastai fine_tune", lambda: _loaded("fastai_fine_tune"), ("fastai",)),
    Contender("lightning", "Lightning BackboneFinetuning", lambda: _loaded("lightning_backbone"), ("lightning",)),
    Contender(
        "fts",
        "finetuning-scheduler, default schedule",
        lambda: _loaded("scheduled", "fit_default"),
        ("finetuning-scheduler", "lightning"),
    ),
    Contender(
        "fts-early-stopping",
        "finetuning-scheduler, three phases, early stopping",
        lambda: _loaded("scheduled", "fit_early_stopping"),
        ("finetuning-scheduler", "lightning"),
    ),
    Contender("ray-train", "plain loop inside Ray Train", lambda: _loaded("ray_train"), ("ray",)),
)

TITLES = {one.name: one.title for one in CONTENDERS}
RIVALS = tuple(one.name for one in CONTENDERS if one.rival)


def contender(name: str) -> Contender:
    """By name.

    Raises:
        KeyError: there is none.
    """
    return {one.name: one for one in CONTENDERS}[name]
