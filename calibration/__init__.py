"""How far a judge can be believed, and what the win rate is on the human scale.

    >>> from calibration import GoldSet, agreement_report, win_rate
    >>> gold = GoldSet.read("gold.jsonl")                       # doctest: +SKIP
    >>> report = agreement_report(gold, verdicts)               # doctest: +SKIP
    >>> win_rate(run, gold).corrected                           # doctest: +SKIP

Pure mathematics on values: no model, no store, no clock; ``GoldSet.read`` is its one reader. Every figure leaves as an
``Estimate`` or as a reason why there is none. A name loads its module, and numpy with it, on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .agreement import AgreementReport, agreement_report
    from .alpacaeval import AlpacaEval2, alpacaeval2
    from .annotators import alt_test, dawid_skene, latent_accuracy
    from .bias import family_bias, flip_sources, position_bias, style_bias
    from .coefficients import Resampling, cohen_kappa, fleiss_kappa, gwet_ac, krippendorff_alpha
    from .confidence import Calibration, NotCalibrated
    from .discrimination import auc, auc_difference, fit_logistic
    from .draws import Draw, draw_active, draw_random, draw_stratified
    from .drift import AnchorDrift
    from .estimates import Estimate, bootstrap, difference, equivalence, geometric_mean_ratio, mcnemar, mean, share
    from .evidence import Evidence, Said
    from .gold import GoldItem, GoldLabel, GoldSet, combine
    from .length import LengthControlled
    from .panel import Panel, fit_panel
    from .ppi import corrected_mean
    from .provenance import Judged, JudgedRun, Refused
    from .ratings import Battles, Ratings, rate
    from .reliability import Reliability, assess
    from .report import CalibrationReport, calibration_report
    from .segments import benjamini_hochberg, benjamini_yekutieli, holm, pool, segment_rates
    from .selective import Certificate, certify
    from .sequential import monitor
    from .winrate import WinRate, segment_win_rates, win_rate
else:
    _HOMES = {
        "agreement": ("AgreementReport", "agreement_report"),
        "alpacaeval": ("AlpacaEval2", "alpacaeval2"),
        "annotators": ("alt_test", "dawid_skene", "latent_accuracy"),
        "bias": ("family_bias", "flip_sources", "position_bias", "style_bias"),
        "coefficients": ("Resampling", "cohen_kappa", "fleiss_kappa", "gwet_ac", "krippendorff_alpha"),
        "confidence": ("Calibration", "NotCalibrated"),
        "discrimination": ("auc", "auc_difference", "fit_logistic"),
        "draws": ("Draw", "draw_active", "draw_random", "draw_stratified"),
        "drift": ("AnchorDrift",),
        "estimates": (
            "Estimate",
            "bootstrap",
            "difference",
            "equivalence",
            "geometric_mean_ratio",
            "mcnemar",
            "mean",
            "share",
        ),
        "evidence": ("Evidence", "Said"),
        "gold": ("GoldItem", "GoldLabel", "GoldSet", "combine"),
        "length": ("LengthControlled",),
        "panel": ("Panel", "fit_panel"),
        "ppi": ("corrected_mean",),
        "provenance": ("Judged", "JudgedRun", "Refused"),
        "ratings": ("Battles", "Ratings", "rate"),
        "reliability": ("Reliability", "assess"),
        "report": ("CalibrationReport", "calibration_report"),
        "segments": ("benjamini_hochberg", "benjamini_yekutieli", "holm", "pool", "segment_rates"),
        "selective": ("Certificate", "certify"),
        "sequential": ("monitor",),
        "winrate": ("WinRate", "segment_win_rates", "win_rate"),
    }
    _MODULES = {name: module for module, exported in _HOMES.items() for name in exported}

    def __getattr__(name: str) -> object:
        """Import the module that defines ``name`` on its first use."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value
        return value


__all__ = [
    "AgreementReport",
    "AlpacaEval2",
    "AnchorDrift",
    "Battles",
    "Calibration",
    "CalibrationReport",
    "Certificate",
    "Draw",
    "Estimate",
    "Evidence",
    "GoldItem",
    "GoldLabel",
    "GoldSet",
    "Judged",
    "JudgedRun",
    "LengthControlled",
    "NotCalibrated",
    "Panel",
    "Ratings",
    "Refused",
    "Reliability",
    "Resampling",
    "Said",
    "WinRate",
    "agreement_report",
    "alpacaeval2",
    "alt_test",
    "assess",
    "auc",
    "auc_difference",
    "benjamini_hochberg",
    "benjamini_yekutieli",
    "bootstrap",
    "calibration_report",
    "certify",
    "cohen_kappa",
    "combine",
    "corrected_mean",
    "dawid_skene",
    "difference",
    "draw_active",
    "draw_random",
    "draw_stratified",
    "equivalence",
    "family_bias",
    "fit_logistic",
    "fit_panel",
    "fleiss_kappa",
    "flip_sources",
    "geometric_mean_ratio",
    "gwet_ac",
    "holm",
    "krippendorff_alpha",
    "latent_accuracy",
    "mcnemar",
    "mean",
    "monitor",
    "pool",
    "position_bias",
    "rate",
    "segment_rates",
    "segment_win_rates",
    "share",
    "style_bias",
    "win_rate",
]
