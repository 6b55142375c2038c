"""Values to text, in one place: units, signs, digits, and text that came from outside made safe.

Bytes and seconds become GiB and minutes here and nowhere else. A value that is missing reads
'not measured', never 0 or NaN. What this leaves out: which values are shown (`findings`,
`report_tables`), and HTML, which jinja escapes by itself.
"""

from __future__ import annotations

import math
import re

MISSING = "not measured"
MINUS = "\u2212"  # as wide as a plus sign, so that signed columns align

# CSI and OSC sequences, other two-byte escapes, then every control character but tab and newline.
_ESCAPE_CODES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\-_]?"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# Direction overrides make text look like other text; lone surrogates can't be encoded.
_DECEPTIVE = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
# A report is published: where somebody's files lie is not part of it. URLs and owner/name stay.
_ABSOLUTE_PATH = re.compile(r"(?:file://|(?<![\w/.~-]))(?:/[^\s/:;,'\"<>()\[\]{}|]+){2,}/?")
_WINDOWS_PATH = re.compile(r"\b[A-Za-z]:\\(?:[^\s\\:;,'\"<>|]+\\)+[^\s\\:;,'\"<>|]*")

_MARKDOWN_SPECIAL = re.compile(r"([\\`*_{}\[\]|~$!])")
# What would start a heading, a list, a rule or a code block at the beginning of a line.
_MARKDOWN_BLOCK = re.compile(r"^(#{1,6}(?=\s|$)|[+-](?=\s|$)|--|=+$|\d+(?=[.)](?:\s|$)))")


def decimals(scale: float) -> int:
    """Choose how many decimals show a tenth of `scale`: 0.05 gives 3, 2 gives 1."""
    if not math.isfinite(scale) or scale <= 0:
        return 3
    return min(8, max(0, 1 - math.floor(math.log10(scale))))


def signed(value: float | None, digits: int = 3) -> str:
    """Write a number with its sign and a fixed number of decimals."""
    if value is None:
        return MISSING
    text = f"{value:+.{digits}f}"
    if float(text) == 0:  # no '-0.000'
        text = f"{0:.{digits}f}"
    return text.replace("-", MINUS)


def number(value: float | None, significant: int = 4) -> str:
    """Write a number with a sensible count of digits and thin thousands."""
    if value is None:
        return MISSING
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e15 or size < 1e-6:
        return f"{value:.{significant - 1}e}".replace("-", MINUS)
    digits = max(0, significant - 1 - math.floor(math.log10(size)))
    text = f"{value:,.{digits}f}"
    return text.replace(",", "\u202f").replace("-", MINUS)


def count(value: int | None) -> str:
    """Write a whole number with thin thousands."""
    return MISSING if value is None else f"{value:,}".replace(",", "\u202f").replace("-", MINUS)


def percent(ratio: float | None, digits: int = 0) -> str:
    """Write a ratio as a percentage."""
    return MISSING if ratio is None else f"{ratio:.{digits}%}".replace("-", MINUS)


def share(ratio: float | None) -> str:
    """Write a share of a whole, with more digits where it is small."""
    if ratio is None:
        return MISSING
    return percent(ratio, 0 if ratio >= 0.1 or ratio == 0 else 1 if ratio >= 0.01 else 2)


def memory(value: float | None) -> str:
    """Write bytes as GiB, or as MiB below one GiB."""
    if value is None:
        return MISSING
    gib = value / 2**30
    text = f"{gib:.2f} GiB" if abs(gib) >= 1 else f"{value / 2**20:.0f} MiB"
    return text.replace("-", MINUS)


def duration(seconds: float | None) -> str:
    """Write seconds as milliseconds, seconds, minutes or hours."""
    if seconds is None:
        return MISSING
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def scaled(value: float | None, unit: str) -> str:
    """Write a large number with an SI prefix: 3.1 GFLOP."""
    if value is None:
        return MISSING
    for prefix, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def span(low: float | None, high: float | None, write: str, digits: int = 3) -> str:
    """Write an interval; `write` is 'signed' or 'percent'."""
    if low is None or high is None:
        return "no interval from one seed"
    if write == "percent":
        return f"{percent(low, digits)} to {percent(high, digits)}"
    return f"{signed(low, digits)} to {signed(high, digits)}"


def plural(n: int, noun: str) -> str:
    """Write a count with its noun: 1 seed, 3 seeds."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def harmless(text: object) -> str:
    """Make text from outside safe on a terminal: no escape codes, no control characters."""
    plain = _ESCAPE_CODES.sub("", str(text))
    plain = _DECEPTIVE.sub("\ufffd", _CONTROLS.sub(" ", plain))
    return plain.replace("\u2028", " ").replace("\u2029", " ")


def clean(text: object, limit: int = 2000) -> str:
    """Make text from outside showable: no escape codes, no control characters, no local paths."""
    plain = harmless(text)
    plain = _ABSOLUTE_PATH.sub(lambda m: ".../" + _last_part(m.group(), "/"), plain)
    plain = _WINDOWS_PATH.sub(lambda m: ".../" + _last_part(m.group(), "\\"), plain)
    return plain if len(plain) <= limit else plain[: limit - 1] + "\u2026"


def markdown(text: object) -> str:
    """Escape text for one line or table cell of Markdown, so that none of it renders as markup."""
    line = " ".join(clean(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = _MARKDOWN_SPECIAL.sub(r"\\\1", line)
    line = _MARKDOWN_BLOCK.sub(_escape_block, line)
    # GitHub turns bare addresses into links and @name into a notification.
    line = line.replace("://", "\\://").replace("www.", "www\\.")
    return re.sub(r"@(?=\w)", "@\u2060", line)


def csv_cell(text: object) -> str:
    """Write text for a spreadsheet: a cell that would start a formula gets an apostrophe."""
    plain = " ".join(clean(text).split())
    return "'" + plain if plain[:1] in ("=", "+", "-", "@", MINUS) else plain


def _last_part(path: str, separator: str) -> str:
    return path.rstrip(separator).rsplit(separator, 1)[-1]


def _escape_block(match: re.Match[str]) -> str:
    start = match.group()
    return f"{start}\\" if start.isdigit() else f"\\{start}"
