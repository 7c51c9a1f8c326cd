"""The types of a config's fields, checked by pydantic."""

from __future__ import annotations

from typing import Annotated

import pydantic
from pydantic import Field

CHECKED = pydantic.ConfigDict(extra="forbid")
Positive = Annotated[int, Field(gt=0, strict=True)]
NonNegative = Annotated[int, Field(ge=0, strict=True)]
AxisSize = Annotated[int, Field(ge=-1, strict=True)]
Fraction = Annotated[float, Field(ge=0, le=1, strict=True)]
DecayRate = Annotated[float, Field(ge=0, lt=1, strict=True)]
Strength = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
