"""The limits that raise an alert by themselves: a YAML file, and its one typed reader."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from configs.args import Strict
from configs.reader import PROJECT_ROOT, ConfigError, Problem, read_yaml

DEFAULT = PROJECT_ROOT / "configs" / "alert_rules.yaml"
Code = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$")]
Loinc = Annotated[str, Field(pattern=r"^[0-9]{1,7}-[0-9]$")]
Limit = Annotated[float, Field(allow_inf_nan=False)]
Factor = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Rule(Strict):
    """One measurement, by its LOINC codes, and the limits beyond which it raises an alert."""

    code: Code = Field(description="The alerts' code.")
    loinc: list[Loinc] = Field(min_length=1, description="LOINC codes that it judges.")
    severity: Literal["critical", "high"] = Field(default="critical", description="Of its alerts.")
    unit: str = Field(min_length=1, description="The unit of its limits, as it is shown.")
    units: dict[str, Factor] = Field(
        min_length=1, description="Units that are known, in small letters, each with its factor."
    )
    at_most: Limit | None = Field(default=None, description="Raises at this value and below.")
    below: Limit | None = Field(default=None, description="Raises below this value.")
    at_least: Limit | None = Field(default=None, description="Raises at this value and above.")
    above: Limit | None = Field(default=None, description="Raises above this value.")

    @model_validator(mode="after")
    def _limits_something(self) -> Rule:
        if all(each is None for each in (self.at_most, self.below, self.at_least, self.above)):
            raise ValueError("give at least one of at_most, below, at_least, above")
        if unknown := [unit for unit in self.units if unit != unit.lower()]:
            raise ValueError(f"units are written in small letters: {', '.join(unknown)}")
        return self

    def is_beyond(self, value: float) -> bool:
        """Whether a value, in the rule's unit, raises an alert."""
        return (
            (self.at_most is not None and value <= self.at_most)
            or (self.below is not None and value < self.below)
            or (self.at_least is not None and value >= self.at_least)
            or (self.above is not None and value > self.above)
        )


class AlertRules(Strict):
    """The whole file."""

    rules: list[Rule] = Field(description="Every rule; an empty list: none.")

    @model_validator(mode="after")
    def _codes_are_unique(self) -> AlertRules:
        codes = [rule.code for rule in self.rules]
        if repeated := sorted({code for code in codes if codes.count(code) > 1}):
            raise ValueError(f"code given twice: {', '.join(repeated)}")
        return self


@lru_cache(maxsize=8)
def alert_rules(path: str | None, root: Path = PROJECT_ROOT) -> tuple[Rule, ...]:
    """The rules of a file, relative to the project's root; those of this folder by default.

    Raises `ConfigError`.
    """
    file = DEFAULT if path is None else root / Path(path).expanduser()
    try:
        return tuple(AlertRules.model_validate(read_yaml(file)).rules)
    except ValidationError as error:
        problems = [
            Problem(".".join(map(str, each["loc"])) or "file", each["msg"])
            for each in error.errors(include_input=False, include_url=False)
        ]
        raise ConfigError(file, problems) from error
