"""Read one recording from the files people have: WFDB, EDF, CSV or text, and what else `formats.py` lists.

python reading.py FILE...                say what was read from each; - is standard input
"""

import os
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np

import bounds
import formats
import quality
from leads import choose, microvolts, no_signal
from shell import UserError, parser, run_script, shortened, unwarned

# signal: float64 (samples,) in µV; sampling_rate in Hz; notes: sentences about what was assumed or changed; begin: s of
# what was cut off before it, so that times are those of the file.
Recording = namedtuple("Recording", "signal sampling_rate notes begin", defaults=[0.0])

RATES = 50, 1_000_000  # Hz; whatever is above the model's is resampled
LEAST_SECONDS = 5
GAP_SECONDS, GAP_SHARE = 1, 0.1  # the longest gap, and the share of all samples, that are interpolated
CONSTANT_SECONDS = 0.2  # from here on, a constant end is padding or a loose electrode, and seen by the model
# µV between the 1st and 99th percentile: the challenge's recordings have 187 to 9,795. Unlike the extremes, the
# percentiles do not follow one electrode pop; a QRS complex every second still fills more than a hundredth.
AMPLITUDES = 20, 20_000


@unwarned()
def read(path, lead=None, fs=None, unit=None):
    """The `Recording` in a file of any of the formats, or in standard input (-), cleaned but not resampled.

    lead: name or number from 1 (None: lead I, else II, else the first ECG by its name, else the only signal); fs: Hz;
    unit: mV, uV or raw (the stored numbers as they are). fs and unit win over what the file says. Raises `UserError`
    for anything that is not known to be one ECG lead at a known rate and unit.
    """
    path = Path("standard input") if str(path) == "-" else Path(path)
    channels, notes = _open(path, unit)
    index, choice = choose(channels, lead, path)
    channel = channels[index]
    rate, said = _rate(channel, fs, path)
    own_unit, scale, told = _unit(channel, unit)
    notes = [*choice, *notes, *said, *told]
    lacking = [("sampling rate", "--fs HZ")] if rate is None else []
    if scale is None:
        own = f"voltage ({channel.unit!r} is none)" if channel.unit else "unit"
        lacking.append((own, "--unit mV, uV or raw"))
    if lacking:
        things, flags = zip(*lacking, strict=True)
        doubt = f" ({channel.doubt})" if channel.doubt else ""
        raise UserError(f"{path} does not tell its {' or '.join(things)}{doubt}; pass {' and '.join(flags)}")

    another = "name another recording" + (" or --lead" if len(channels) > 1 else "")
    signal, name = scale * np.asarray(channel.load(), np.float64), channel.name
    del channels, channel  # which hold all leads
    signal, changes, first = _clean(signal, rate, path, another)
    begin = float(first / rate)
    found = no_signal(signal)
    if found:
        raise UserError(f"{path}: {name} holds {found}, and no ECG; {another}")
    faults = quality.faults(signal, rate)
    good, told = quality.between(faults, len(signal), rate), _left_out(faults, rate, begin)
    if not good:
        raise UserError(f"{path} has no {quality.LEAST_SECONDS} s that are whole ({'; '.join(told)}); {another}")
    if unit != "raw":
        _check_amplitude([signal[start:stop] for start, stop in good], own_unit, scale, path)
    return Recording(signal, float(rate), notes + changes + told, begin)


def _left_out(faults, rate, begin):
    """Notes on the `quality.Fault`s of a signal at a rate in Hz, from `begin` s on, one for each kind."""
    notes = []
    for what in dict.fromkeys(fault.what for fault in faults):
        alike = [fault for fault in faults if fault.what == what]
        seconds = sum(fault.stop - fault.start for fault in alike) / rate
        places = f"{len(alike)} places" if len(alike) > 1 else f"{begin + alike[0].start / rate:.1f} s"
        notes.append(f"{seconds:.1f} s {'are' if seconds != 1 else 'is'} {what}, at {places}, and left out")
    return notes


def _rate(channel, fs, path):
    """(rate in Hz or None, notes) of a channel, of which the user may say another."""
    if fs is not None and not RATES[0] <= fs <= RATES[1]:
        raise UserError(f"{path} has a sampling rate of {fs:g} Hz by --fs; pass --fs from {RATES[0]} to {RATES[1]}")
    if fs is None:
        if channel.rate is not None and not RATES[0] <= channel.rate <= RATES[1]:
            wanted = f"at least {RATES[0]} Hz are needed" if channel.rate < RATES[0] else "no ECG has such a rate"
            raise UserError(
                f"{path} has a sampling rate of {channel.rate:g} Hz for {channel.name}; {wanted}, so export it anew"
            )
        return channel.rate, []
    if channel.rate is None:
        return fs, [f"{channel.doubt}; --fs {fs:g} was taken"] if "Hz" in channel.doubt else []
    if channel.rate == fs:
        return fs, []
    return fs, [f"the file says {channel.rate:g} Hz but --fs {fs:g} was taken"]


def _unit(channel, unit):
    """(name of the unit, µV in one of it or None, notes) of a channel, of which the user may say another."""
    scale = microvolts(channel.unit or "")
    if unit == "raw":
        return unit, 1, ["the stored numbers were taken as they are, as 1000 per mV"]
    if unit and scale not in (None, microvolts(unit)):
        return unit, microvolts(unit), [f"the file says {channel.unit} but --unit {unit} was taken"]
    return (unit, microvolts(unit), []) if unit else (channel.unit, scale, [])


def _open(path, unit):
    """(list of `Channel`, notes) of a file: a WFDB record by its name, another by its first bytes."""
    if str(path) == "standard input":
        return formats.read(path, bounds.read_stream(sys.stdin.buffer, path), unit)
    suffix = path.suffix.lower()
    header = header_of(path)
    if header or suffix == ".hea":
        return formats.read_wfdb(header or path.with_suffix(".hea"), unit)
    if not os.path.lexists(path):
        if suffix == ".dat":
            return formats.read_wfdb(path.with_suffix(".hea"), unit)
        what = "matches no file" if set("*?[").intersection(str(path)) else "does not exist"
        raise UserError(f"{path} {what}; name a recording")
    content = bounds.read_file(path)
    if suffix == ".dat" and b"\0" in content[:4096]:  # no text, which others call .dat too
        return formats.read_wfdb(path.with_suffix(".hea"), unit)
    return formats.read(path, content, unit)


def header_of(path):
    """The header of the WFDB record that `path` names, itself or by its record or signals, in any case; or None.

    A header beside a `.mat` file may be of another file of that name.
    """
    if not path.name:  # the folder that one is in
        return None
    suffix = path.suffix.lower()
    names = [f"{path.name}.hea", path.stem + ".hea"] if suffix in (".hea", ".dat", ".mat") else [f"{path.name}.hea"]
    for name in names:
        for ending in (".hea", ".HEA", ".Hea"):
            header = path.with_name(name.removesuffix(".hea") + ending)
            if os.path.isfile(header):  # unlike Path's own, this takes names that are too long
                return header if suffix != ".mat" or formats.is_of(header, path) else None
    return None


def _clean(signal, rate, path, another):
    """(signal, notes, samples cut off before it) without gaps and constant ends, of a signal (samples,) at a rate in
    Hz; another: the advice where it is none.
    """
    finite = np.isfinite(signal)
    if not finite.any():
        raise UserError(f"{path} holds no samples; export the recording again")
    notes = []
    first, stop = finite.argmax(), len(signal) - finite[::-1].argmax()
    ends = len(signal) - (stop - first)
    if ends:
        notes.append(f"at the ends {ends} samples were missing and were cut off")
    before, signal, finite = first, signal[first:stop], finite[first:stop]
    missing = len(signal) - np.count_nonzero(finite)
    if missing:
        known = np.flatnonzero(finite)
        longest = (np.diff(known).max() - 1) / rate
        if longest > GAP_SECONDS or missing > GAP_SHARE * len(signal):
            raise UserError(
                f"{path} lacks {missing / len(signal):.0%} of its samples, up to {longest:.1f} s at a stretch; at most "
                f"{GAP_SHARE:.0%} and {GAP_SECONDS} s can be interpolated, so cut out a whole stretch"
            )
        signal = np.interp(np.arange(len(signal)), known, signal[known])
        notes.append(f"{missing} sample{'s were' if missing > 1 else ' was'} missing and interpolated")

    changes = signal[1:] != signal[:-1]
    if not changes.any():
        raise UserError(f"{path} is constant throughout; {another}")
    first, last = changes.argmax() + 1, len(changes) - changes[::-1].argmax()  # of what lies between the constant ends
    stop = len(signal)
    if (stop - last) / rate >= CONSTANT_SECONDS:
        notes.append(f"the last {(stop - last) / rate:.1f} s were constant and were cut off")
        stop = last
    if first / rate >= CONSTANT_SECONDS:
        notes.append(f"the first {first / rate:.1f} s were constant and were cut off")
        before, signal, stop = before + first, signal[first:], stop - first
    signal = signal[:stop]
    if len(signal) / rate < LEAST_SECONDS:
        rest = f" ({'; '.join(notes)})" if notes else ""
        raise UserError(f"{path} lasts {len(signal) / rate:.1f} s{rest}; at least {LEAST_SECONDS} s are needed")
    return signal, notes, before


def _check_amplitude(stretches, unit, scale, path):
    """Refuse parts of a signal, [(samples,)] in µV, by whose amplitude its numbers, scale µV each, had another unit."""
    signal = stretches[0] if len(stretches) == 1 else np.concatenate(stretches)
    amplitude = np.subtract(*np.percentile(signal, [99, 1])) / scale
    if AMPLITUDES[0] <= amplitude * scale <= AMPLITUDES[1]:
        return
    fitting = [
        f"{other}, or " for other in ("mV", "uV") if AMPLITUDES[0] <= amplitude * microvolts(other) <= AMPLITUDES[1]
    ]
    size = f"{amplitude:,.0f}" if amplitude >= 10 else f"{amplitude:.2g}"
    raise UserError(
        f"{path}: its amplitude of {size} {unit} is not that of an ECG in {unit}; "
        f"pass --unit {''.join(fitting)}raw to take its numbers as they are"
    )


def add_flags(flags):
    """Add to a parser the flags of what a file may not tell, as `told` returns them."""
    add, against = flags.add_argument, "for files that do not tell theirs, or against those that do"
    add("--lead", metavar="NAME", help="name or number of the lead (default: I, else II, else the first ECG)")
    add("--fs", type=float, metavar="HZ", help=f"sampling rate, {against}")
    add("--unit", choices=("mV", "uV", "raw"), help=f"unit, {against}")


def told(flags, arguments):
    """(lead, fs, unit), as `read` takes them, of the parsed `arguments` of `flags`, checked."""
    if arguments.fs is not None and not RATES[0] <= arguments.fs <= RATES[1]:
        flags.error(f"--fs must be from {RATES[0]} to {RATES[1]} Hz, not {arguments.fs:g}")
    return arguments.lead, arguments.fs, arguments.unit


def main():
    flags = parser(__doc__)
    flags.add_argument("files", nargs="+", type=Path, metavar="FILE", help="recordings; - is standard input")
    add_flags(flags)
    arguments = flags.parse_args()
    refused = []
    for path in arguments.files:
        try:
            signal, rate, notes, _ = read(path, *told(flags, arguments))
            print("; ".join(map(shortened, [f"{path}: {len(signal) / rate:.1f} s at {rate:g} Hz", *notes])))
        except UserError as error:
            refused.append(str(error))
    if refused:
        raise UserError("; ".join(refused))


if __name__ == "__main__":
    run_script(main)
