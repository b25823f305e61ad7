"""What channels are called, in which units, and which one is the ECG to classify."""

import re
from collections import namedtuple

import numpy as np

from shell import UserError, shortened

# rate in Hz and unit as the file gives them, else None; load() returns the numbers (samples,) in that unit;
# doubt: why the file tells no rate or unit, where it says something of them.
Channel = namedtuple("Channel", "name rate unit load doubt", defaults=("",))

RISING = "numbers that only rise, as times do"
LISTED, LONGEST = 8, 60  # names in a sentence, and characters of one
MOST_LEADS = 64
COUNTER_SHARE = 0.93  # of the steps of a counter or of times goes one way; of an ECG's, about half
# States or labels, of which codes are small integers; an ECG in steps of 50 µV has ten different numbers and more.
FEW_CODES, LARGEST_SPAN, FEW_NUMBERS = 16, 100, 4

# Groups of such names are of one recording.
PARTS = "lead", "ch", "chan", "channel", "signal", "sensor", "raw", "filtered", "clean", "rhythm", "median", "average"

LIMBS = {frozenset({"la", "ra"}): "i", frozenset({"ll", "ra"}): "ii", frozenset({"ll", "la"}): "iii"}
SAME_LEADS = {"d1": "i", "di": "i", "ml1": "i", "mli": "i", "d2": "ii", "dii": "ii", "ml2": "ii", "mlii": "ii"}
SAME_LEADS |= {"d3": "iii", "diii": "iii", "ml3": "iii", "mliii": "iii"}
LEAD = re.compile(r"d?i{1,3}|d[1-3]|ml(?:i{1,3}|[1-3])|av[rlf]|m?v[1-9]r?|mcl[1-6]|c[mscb]5|v[xyz]")
ECG = re.compile("e[ck]g|экг|ele[ck]tro[ck]ard|心電|心电|심전")
# Numbers that are made of an ECG or stand beside it, often with its name.
BESIDE = re.compile(
    r"heartrates?|pulse|rates?|hr|hrv|bpm|rri?|ibi|nni?|peaks?|rpeaks?|qrs|(?:heart)?beats?|labels?|class|targets?|ann"
    r"|annot\w*|event\w*|index|idx|count|counts|counter|cnt|packets?|n?seq|sequence|frames?|number|quality|sqi|status"
    r"|state|flags?|trig\w*|markers?|mark|contact|loff|off|impedance|imp|batt?|battery|id|crc|checksum|valid|score"
    r"|confidence|gain|offset|times?|timestamps?|date|millis|micros|sync"
)
PLAIN_NUMBERS = re.compile(r"[\[(]\s*(?:adc|raw|digital)?[\s_-]*(?:counts?|units?|values?|numbers?)\s*[\])]", re.I)
DOUBTFUL = re.compile(r"counts?|number|valid|offset|gain|marks?")  # of an ECG, or an ECG of which something is said
# Other signals.
OTHER = re.compile(
    r"resp\w*|breath\w*|edr|flow|airflow|nasal|cannula|therm\w*|effort|abd\w*|snor\w*|sound|audio|mic|microphone"
    r"|phono\w*|pcg|scg|bcg|icg|spo2\w*|sp02|sao2|pao2|o2sat|co2|etco2|pleth\w*|ppg\w*|bvp|abp|cvp|pap|art|bp|nibp|ibp"
    r"|icp|press\w*|cpap|emg\w*|eog\w*|eda|gsr|scl|temp\w*|acc\w*|gyr\w*|mag\w*|motion|activity|steps?|pos|position"
    r"|light|lux|chin\w*|ment\w*|masseter|tib\w*|plm\w*|loc|roc|mask|leak|humidity|dc\d+"
)
# Other signals whose name an ECG may carry before its own, as in "EEG EKG-REF" and "Chest ECG".
SIGNALS = re.compile(
    r"eeg\w*|chest|thor\w*|legs?|lat|rat|fp[12z]|af[3-8z]|fc?(?:\d|10|z)|ft(?:7|8|9|10)|cp?[1-6z]|t(?:[1-8]|9|10)"
    r"|tp(?:7|8|9|10)|po?[1-8z]|o[12z]|[am][12]|pg[12]|e[12]|iz|nz|ir|red|green"
)


def words(name):
    """The lower-case words of a channel's name: "ECG_LL-RA (mV)" gives ecg, ll, ra, mv, and "HeartRate" heart, rate."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])|(?<=[A-Za-z])(?=Rate|Index|HR\b)", " ", name)
    return re.findall(r"[^\W_]+", apart.casefold())


def lead_of(name):
    """The lead that a name means, whatever stands around it, as "i", "ii" or "v1"; else None."""
    found = words(name)
    for limbs, lead in LIMBS.items():
        if limbs <= set(found):
            return lead
    lead = next((word for word in found if LEAD.fullmatch(word)), None)
    return SAME_LEADS.get(lead, lead)


def kind(name):
    """What a channel is called after: "ecg" (or a lead), what stands "beside" one, an "other" signal, or ""."""
    found = words(PLAIN_NUMBERS.sub(" ", name))
    found += [word.rstrip("0123456789") for word in found]
    for called, pattern in (("other", OTHER), ("beside", BESIDE)):
        if any(pattern.fullmatch(word) for word in found):
            return called
    if any(ECG.search(word) for word in found) or lead_of(name):
        return "ecg"
    return "other" if any(SIGNALS.fullmatch(word) for word in found) else ""


def microvolts(unit):
    """µV in one unit such as "mV", "µV", "V" or "microvolts"; None for what is no voltage."""
    # Case folding makes one of the two code points that are written µ.
    match = re.fullmatch(r"(m|milli|м|u|μ|mc|micro|mikro|мк|n|nano)?(?:v|volt(?!age)\w*|в)", unit.strip().casefold())
    return match and {None: 1e6, "m": 1e3, "milli": 1e3, "м": 1e3, "n": 1e-3, "nano": 1e-3}.get(match[1], 1)


def listed(names):
    """The first of some names as a text for a sentence."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(shortened(name, LONGEST) for name in names[:LISTED]) + more


def no_signal(numbers):
    """What `numbers` (samples,) are when no signal can look so, "numbers that only rise", else None."""
    numbers = np.asarray(numbers, np.float64)
    finite = np.isfinite(numbers)
    if not finite.any():
        return "no numbers"
    numbers = numbers if finite.all() else numbers[finite]  # of a day, each copy takes 200 MB
    steps = np.diff(numbers)
    rising, falling = np.count_nonzero(steps > 0), np.count_nonzero(steps < 0)
    ups = rising / (rising + falling) if rising + falling >= 3 else 0.5
    if ups in (0, 1):
        return RISING if ups else "numbers that only fall"
    different = len(np.unique(numbers[:: len(numbers) // 100_000 + 1]))
    codes = np.ptp(numbers) <= LARGEST_SPAN and (numbers == np.round(numbers)).all()
    if different <= (FEW_CODES if codes else FEW_NUMBERS):
        return f"only {different} different numbers"
    sizes = np.setdiff1d(steps[:1_000_000], 0)  # those of a counter are its step and the way back
    wraps = len(sizes) == 2 and np.abs(sizes).max() >= 3 * np.abs(sizes).min()
    if wraps or max(ups, 1 - ups) >= COUNTER_SHARE:
        return "numbers that rise and start again, as a counter does"
    return None


def choose(channels, lead, path):
    """(index of the `Channel` to take, notes): the lead that is asked for, else lead I, else II, else the first ECG.

    A channel that is called neither an ECG nor anything else is taken where there is no other signal.
    Raises `UserError` where none or several remain.
    """
    names = [channel.name for channel in channels]
    if not names:
        raise UserError(f"{path} holds no signal; name another recording")
    index = _asked(names, lead, path) if lead is not None else _likely(channels, path)
    others = names[:index] + names[index + 1 :]
    notes = [f"of {len(names)} leads {names[index]} was taken; the others are {listed(others)}"] if others else []
    if lead is None and not kind(names[index]) and not re.fullmatch(r"lead \d+", names[index]):
        notes.append(f"{names[index]!r} was taken for an ECG, which its name does not say")
    return index, notes


def _likely(channels, path):
    """The index of the channel that must be the ECG."""
    names = [channel.name for channel in channels]
    kinds = [kind(name) for name in names]
    leads = [i for i, found in enumerate(kinds) if found == "ecg"]
    leads = [i for wanted in ("i", "ii") for i in leads if lead_of(names[i]) == wanted] + leads
    grouped = [names[i] for i in dict.fromkeys(leads) if "/" in names[i]]
    same = [name for name in grouped if _what(name) == _what(grouped[0])]
    if len(same) > 1:
        raise UserError(f"{path} holds several recordings, {listed(same)}; pass --lead with the name of one")
    if leads:  # whose numbers are loaded only until some fit
        return next((i for i in leads if not no_signal(channels[i].load())), leads[0])
    likely = [i for i, found in enumerate(kinds) if not found]
    named = [
        i
        for i, name in enumerate(names)
        if kinds[i] == "beside" and ECG.search(name.casefold()) and any(map(DOUBTFUL.fullmatch, words(name)))
    ]
    if likely and (named := [i for i in named if not no_signal(channels[i].load())]):
        told = listed([names[i] for i in [*named, *likely]])
        raise UserError(f"{path} does not tell which of {told} is the ECG; pass --lead with its name or number")
    if not likely:
        raise UserError(f"{path} holds {listed(names)}, none of which may be an ECG; pass --lead if one is")
    fitting = [i for i in likely if not no_signal(channels[i].load())] if len(likely) > 1 else likely
    signals = [i for i, found in enumerate(kinds) if found == "other" and not no_signal(channels[i].load())]
    if len(fitting) > 1 or (fitting and signals):
        one = names[fitting[0]]
        which = f"whether {one}" if len(fitting) == 1 else f"which of {listed([names[i] for i in fitting])}"
        raise UserError(f"{path} does not tell {which} is the ECG; pass --lead with its name or number")
    return (fitting or likely)[0]


def _what(name):
    """What a name "group/array" says of the array, whatever recording it is of."""
    group, _, own = name.rpartition("/")
    apart = {word.rstrip("0123456789") for word in words(group)} & {*PARTS, "ecg", "ekg"}
    return own, lead_of(name), group if apart or re.search(r"[(\[]", group) else ""


def _asked(names, lead, path):
    """The index of the channel that --lead means: by its very name, its lead, its number, or words of it alone."""
    wanted = set(words(lead))
    by_name = [
        [i for i, name in enumerate(names) if name.casefold() == lead.casefold()],
        [i for i, name in enumerate(names) if _plain(name) == _plain(lead) != ""],
        [i for i, name in enumerate(names) if lead_of(name) and lead_of(name) == lead_of(lead)],
    ]
    by_words = [i for i, name in enumerate(names) if wanted and wanted <= set(words(name))]
    number = int(lead) - 1 if lead.isdecimal() else -1
    found = next((found for found in by_name if found), [])
    if not found and 0 <= number < len(names):
        return number
    if not found and len(by_words) == 1:
        found = by_words
    if not found:
        raise UserError(f"{path} has no lead {lead}; pass --lead one of {listed(names)}, or its number from 1")
    return found[0]


def _plain(name):
    """What tells leads apart: i for "I", "Lead I" and "ECG_I"; ii also for "MLII", the modified lead II."""
    return re.sub(r"^ml(?=i)", "", re.sub(r"ecg|ekg|lead|\W|_", "", name.casefold()))
