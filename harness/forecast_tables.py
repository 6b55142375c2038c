"""A forecast as a person reads it, and as a line of JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from harness.arm_forecast import ArmForecast
from harness.forecast import Forecast, smallest, told
from harness.forecast_file import AskedRun
from harness.plan_tables import shown_gib
from harness.terminal import answer_console, plain_table
from harness.text import harmless


def print_forecast(
    name: str, run: AskedRun, made: Forecast, fits: Mapping[str, str] | None
) -> None:
    """Print one run's forecast; no GPU that fits where `fits` is None."""
    out = answer_console()
    out.print(Text(harmless(f"{name}: {_headline(run)}"), style="bold"))
    table = plain_table("  term", "GiB", "what")
    table.columns[1].justify = "right"
    for term, gib in zip(made.terms, shown_gib(made.terms), strict=True):
        table.add_row(f"  {term.name}", gib, Text(harmless(term.note)))
    out.print(table)
    for estimate in made.lenses:
        out.print(Text(f"  {estimate.lens}: {told(estimate)}"))
    if fits is not None:
        sure, perhaps = smallest(fits), smallest(fits, ("yes", "perhaps"))
        also = f"; perhaps {perhaps}" if perhaps not in (None, sure) else ""
        out.print(Text(f"  smallest GPU that fits: {sure or 'none of these classes'}{also}"))
    for note in made.remarks:
        out.print(Text(harmless(f"  note: {note}")))
    if run.measured is not None:
        out.print(Text(f"  {_judged(run, made)}"))
    out.print()


def print_arms(arms: Sequence[ArmForecast]) -> None:
    """Print the forecast of each arm of a plan."""
    if not arms:
        return
    out = answer_console()
    out.print()
    title = (
        "Forecast of one GPU's memory, highest moment, in GiB; where an arm is traced, this counts"
    )
    out.print(Text(title, style="bold"))
    table = plain_table("arm", "by", "device (interval)", "terms", "formulas", "smallest GPU")
    for arm in arms:
        made = arm.forecast
        device = made.lens("nvml-device") if made else None
        if made is None or device is None:
            table.add_row(
                f"{arm.pair}.{arm.arm}", "-", "unknown", Text(harmless(arm.why or "")), "", ""
            )
            continue
        terms = ", ".join(f"{t.name} {t.bytes / 2**30:.2f}" for t in made.terms if t.bytes >= 2**20)
        perhaps = smallest(arm.fits, ("yes", "perhaps"))
        also = f" (perhaps {perhaps})" if perhaps not in (None, arm.smallest) else ""
        table.add_row(
            f"{arm.pair}.{arm.arm}",
            made.source,
            f"{device.bytes / 2**30:.1f} ({device.low_bytes / 2**30:.1f}-{device.high_bytes / 2**30:.1f})",
            Text(harmless(terms)),
            f"{arm.cross_check_bytes / 2**30:.1f}" if arm.cross_check_bytes else "",
            f"{arm.smallest or 'none'}{also}",
        )
    out.print(table)
    for arm in arms:
        if arm.why:
            out.print(Text(harmless(f"{arm.pair}.{arm.arm} is not traced: {arm.why}")))
        for note in arm.forecast.remarks if arm.forecast else ():
            out.print(Text(harmless(f"{arm.pair}.{arm.arm}: {note}")))


def printed(
    name: str, run: AskedRun, made: Forecast, fits: Mapping[str, str] | None
) -> dict[str, Any]:
    """Return one run's forecast as data."""
    measured = None if run.measured is None else round(run.measured.gib * 2**30)
    estimate = None if run.measured is None else made.lens(run.measured.lens)
    return {
        "run": name,
        **made.model_dump(mode="json"),
        "notes": made.remarks,
        "fits": fits,
        "measured_bytes": measured,
        "measured_lens": run.measured.lens if run.measured else None,
        "ratio": estimate.bytes / measured if estimate and measured else None,
        "is_inside": estimate.low_bytes <= measured <= estimate.high_bytes
        if estimate and measured
        else None,
    }


def _headline(run: AskedRun) -> str:
    model = run.model if isinstance(run.model, str) else run.model.repository
    arm = "full" if run.lora is None else f"LoRA r={run.lora.r}"
    return f"{arm} of {model}, {run.batch} rows of up to {run.length.longest:,} tokens, {run.loop} loss"


def _judged(run: AskedRun, made: Forecast) -> str:
    assert run.measured is not None  # noqa: S101 - asked by the caller
    estimate = made.lens(run.measured.lens)
    measured = round(run.measured.gib * 2**30)
    if estimate is None:
        return f"measured {run.measured.gib:.2f} GiB of {run.measured.lens}, which is not forecast"
    is_inside = estimate.low_bytes <= measured <= estimate.high_bytes
    return (
        f"measured {run.measured.gib:.2f} GiB ({run.measured.lens}): forecast is "
        f"{estimate.bytes / measured - 1:+.1%} off; {'inside' if is_inside else 'OUTSIDE'} its interval"
    )
