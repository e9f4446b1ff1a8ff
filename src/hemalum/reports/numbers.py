"""Numbers of a report as text: a dash where there is none, a true minus."""

import math


def number(value: object) -> float:
    """A float; nan for what is missing."""
    return float(value) if isinstance(value, (int, float)) else math.nan


def number_text(value: object) -> str:
    """Four digits of a float, `unknown` for None, anything else as it is."""
    if value is None:
        return "unknown"
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def mean_text(value: float, sd: float = math.nan, *, decimals: int = 3, sign: str = "") -> str:
    """A number with fixed decimals, its sd behind ± where it has one; a dash where it is undefined."""
    if not math.isfinite(value):
        return "–"
    # what rounds to zero carries no sign
    rounded = round(value, decimals) + 0.0
    text = f"{rounded:{sign if rounded else ''}.{decimals}f}".replace("-", "−")
    return f"{text} ± {sd:.{decimals}f}" if math.isfinite(sd) else text


def p_text(p: float) -> str:
    """Three decimals, `< 0.001` below, a dash where there is no test."""
    return "< 0.001" if p < 0.001 else mean_text(p)
