"""An OpenFeature provider over ``flags.RolloutProvider``; the only module that imports the SDK."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import FlagResolutionDetails, Reason
from openfeature.provider import AbstractProvider, Metadata

if TYPE_CHECKING:
    from openfeature.evaluation_context import EvaluationContext

    from .flags import Assignment, RolloutProvider

__all__ = ["TouchstoneProvider"]


class TouchstoneProvider(AbstractProvider):  # type: ignore[misc]  # types are checked without the SDK
    """Strings name the model that answers, booleans say whether it is the candidate; numbers and objects are refused.

    Metadata of an evaluation holds ``arm``, ``stage``, ``eligible`` and ``shadow`` for the traffic log.
    """

    def __init__(self, rollout: RolloutProvider) -> None:
        super().__init__()
        self.rollout = rollout

    def get_metadata(self) -> Metadata:
        """The provider's name."""
        return Metadata(name="touchstone-judge")

    def resolve_string_details(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        """The name of the model that answers."""
        found = self._resolve(flag_key, default_value, evaluation_context)
        return _details(found, found.value)

    def resolve_boolean_details(
        self,
        flag_key: str,
        default_value: bool,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[bool]:
        """Whether the candidate answers; the default only where no flag was ever readable."""
        found = self._resolve(flag_key, "", evaluation_context)
        return _details(found, default_value if found.reason.startswith("static") else found.arm == "candidate")

    def resolve_integer_details(
        self, flag_key: str, default_value: int, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[int]:
        """Refused: the flag is no number."""
        return _mismatch(default_value)

    def resolve_float_details(
        self, flag_key: str, default_value: float, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[float]:
        """Refused: the flag is no number."""
        return _mismatch(default_value)

    def resolve_object_details(
        self,
        flag_key: str,
        default_value: Sequence[Any] | Mapping[str, Any],
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[Any]:
        """Refused: the flag is no object."""
        return _mismatch(default_value)

    def _resolve(self, name: str, default: str, context: EvaluationContext | None) -> Assignment:
        key = (context.targeting_key if context is not None else None) or ""
        risk = context.attributes.get("risk", "") if context is not None else ""
        return self.rollout.resolve(name, default, key=key, risk=str(risk))


def _details(found: Assignment, value: Any) -> FlagResolutionDetails[Any]:
    static, stale = found.reason.startswith("static"), found.reason.startswith("stale")
    return FlagResolutionDetails(
        value=value,
        reason=Reason.DEFAULT if static else Reason.STALE if stale else Reason.SPLIT,
        variant=found.arm,
        flag_metadata={
            "arm": found.arm,
            "stage": found.stage,
            "eligible": found.eligible,
            "shadow": found.shadow,
            "why": found.reason,
        },
    )


def _mismatch(default: Any) -> FlagResolutionDetails[Any]:
    return FlagResolutionDetails(
        value=default,
        error_code=ErrorCode.TYPE_MISMATCH,
        error_message="a serving flag is a string (the model) or a boolean (whether it is the candidate)",
        reason=Reason.ERROR,
    )
