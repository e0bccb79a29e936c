"""What is next to a number and changes it: `negative 5` is -5; `42 million`, `half of 42` and `48 - 42` are not 42."""

import re

CONTEXT = 60
"""Characters before and after a number that are read."""

_FILLERS = r"(?:(?:be|have|has|get|need|make|give|include|contain|equal|to|the|a|just|simply) +){0,3}"
_DENIED = re.compile(rf"(?:\b(?:not|cannot|neither|nor|never)|n['’]t) +{_FILLERS}[*_$(]{{0,3}}$", re.IGNORECASE)
_MINUS = re.compile(r"(?P<left>[\d)}\]$] *)?\b(?:negative|minus) +[$*(]{0,2}$", re.IGNORECASE)
_OPERATION_BEFORE = re.compile(
    r"(?:\b(?:twice|thrice|double|triple|half|times|plus|minus|over|than|under|below|above|between|from"
    r"|at (?:least|most)|(?<!rounds )(?<!rounded )up to|(?:divided|multiplied) by|than or equal to|except(?: for)?"
    r"|(?:all|any|every)(?:thing|one)? but|(?<!\d )\b(?:in )?base"
    r"|(?:square|cube|root|half|third|quarter|fifth|tenth|reciprocal|inverse|opposite|negative|factorial|log|logarithm"
    r"|multiple|power) of"
    r"|the (?:sum|product|difference|quotient|ratio) (?:of|between))|% of) +[$*(]{0,2}$",
    re.IGNORECASE,
)
_SIGN_BEFORE = re.compile(
    r"(?:\d[\d.,]*[)}\]]*) *(?P<sign>[+×·÷⋅∙∗＋]|\*(?!\*)| [-−–] | / |\\(?:times|cdot|div)) *[$(]{0,2}$"
)
_LABEL = re.compile(r"(?:\b[A-Z]\w*|\b(?:day|week|month|year|part|step|item|page|chapter|in|on|at)) +\(?$")
"""`Day 1 - 20 pages` subtracts nothing."""
_FRACTION = r"(?:f(?:our|if)|six|seven|eigh|nin|ten|hundred|thousand|[mb]illion|trillion)ths|halves|thirds"
_OPERATION_AFTER = re.compile(
    r"[*$)]{0,3}(?:(?-i:[kKMB])\b|(?: *-?(?:(?:hundred|thousand|[mb]illion|trillion|dozen|score)s?|[mb]n"
    rf"|{_FRACTION}|and (?:an?|one|two|three) (?:half|{_FRACTION}|(?:third|fifth|eighth|quarter|tenth)s?)"
    r"|squared|cubed|factorial|inverse|repeating|lakhs?|crores?|point \d|(?:divided|multiplied) by"
    r"|or (?:more|less|fewer|greater|so)|(?:degrees )?below zero|raised to \w+"
    r"|(?:raised )?to the (?:power|\w+ power|\d+(?:st|nd|rd|th))"
    r"|(?:times|plus|minus|over|to|or|out of|of|through|choose|mod(?:ulo)?|(?:with )?(?:a )?remainder(?: of)?"
    r"|(?:more|less|fewer) than) [$\\(]{0,2}-?\d[\d.,]*|in \d{1,3}(?=[.,]?\s*$)|and \d+ cents|or [a-z] ?= ?-?\d+))\b"
    r"(?: (?:dollars|cents|euros|pounds)\b)?)",
    re.IGNORECASE,
)
_UNIT = (
    r"(?:(?:milli|centi|kilo)?met(?:er|re)|inche|foot|feet|yard|mile|hour|minute|second|day|week|month|year"
    r"|(?:kilo)?gram|pound|ounce|lit(?:er|re)|gallon|degree|dollar|cent|euro|percent)s?"
)
_UNIT_AFTER = re.compile(
    rf"[*$)]{{0,3}}(?: *\\?%| +{_UNIT}\b(?:,?(?: and)? \d+ (?:hour|minute|second|inche|ounce|cent|day|month)s?)?)"
    r"(?! (?:per|an?|of|squared|cubed)\b| *[/^])"
)
_ALTERNATIVE = re.compile(r"(\$[^$]+\$|[-−]?\\?\$?\d[\d.,/]*(?<!,)),? +or +(?:[a-z] *= *)?[$*]{0,3}$")
_ABOUT = ("≈", "pprox", "about", "roughly")
_EXACT = re.compile(
    r"(?P<exact>\$[^$]+\$|\S*[\d\\]\S*?),? *(?:≈|\\approx|(?:or +)?\(?(?:about|approximately|approx\.?|roughly)) *\$?$"
)


def in_context(number: str, before: str, after: str) -> str | None:
    """Returns a number with the words around it that change it, or None if they deny it."""
    before, after = before[-CONTEXT:], after[:CONTEXT]
    if _DENIED.search(before):
        return None
    if any(word in before for word in _ABOUT) and (exact := _EXACT.search(before)):
        return f"{exact['exact'].strip('$')} \\approx {number}"
    if " or " in before and (other := _ALTERNATIVE.search(before)) and not after.lstrip().startswith("="):
        return f"{other[1].strip('$')}, {number}"
    minus = _MINUS.search(before) if "minus" in before or "egative" in before else None
    if minus and not minus["left"]:
        number = f"-{number}"
    elif _OPERATION_BEFORE.search(before):
        return f"{before.strip()} {number}"
    elif (operation := _SIGN_BEFORE.search(before)) and not _is_label(before, operation):
        return f"{operation[0].strip()} {number}"
    words = _OPERATION_AFTER.match(after) or _UNIT_AFTER.match(after)
    return number + re.sub(r"[*$)]", "", words[0]) if words else number


def _is_label(before: str, operation: re.Match[str]) -> bool:
    return operation["sign"].strip() in "-−–·" and _LABEL.search(before[: operation.start()]) is not None


def is_operand(before: str, after: str) -> bool:
    """Returns whether the words around a number compute with it, as in `twice 5` and `5 plus 7`."""
    return bool(_OPERATION_BEFORE.search(before[-CONTEXT:]) or _OPERATION_AFTER.match(after[:CONTEXT]))
