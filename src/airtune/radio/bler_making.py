"""Making the table of block error rates: the only place that imports NVIDIA Sionna."""

from __future__ import annotations

from importlib.metadata import version
from importlib.resources import files

import numpy as np
from sionna.sys import PHYAbstraction

from airtune.radio.bler import BLOCK_BITS, SCHEMES, SNR_DB
from airtune.radio.units import Floats, from_db

_PUSCH, _TABLE = 0, 1
_SIMULATED_DB = 20.0  # no SNR above was simulated; from there on Sionna repeats the last rate
_NEVER = 1e-12


def simulated() -> tuple[Floats, str]:
    """Return error rates [schemes, sizes, SNRs], as bler.py has them, and what they come from.

    Sionna's interpolation up to 20 dB, which is linear in dB and log10 BLER. Beyond, ours: the
    slope of the last decibel goes on, as an error rate over noise alone has no floor. Rates that
    rise a little with SNR, by chance of the simulations, stay at their least so far.
    """
    own = files("sionna.sys") / "bler_tables" / "PUSCH_table1.json"
    # All six tables take as many seconds as this one takes tenths of them.
    phy = PHYAbstraction(load_bler_tables_from=[str(own)], device="cpu")
    rates = np.ones((SCHEMES, BLOCK_BITS.size, SNR_DB.size))
    known = SNR_DB <= _SIMULATED_DB + 1e-9
    for scheme in range(SCHEMES):
        for place, bits in enumerate(BLOCK_BITS.tolist()):
            found = phy.get_bler(scheme, _TABLE, _PUSCH, bits, from_db(SNR_DB[known]))
            rate = found.cpu().numpy().astype(np.float64)
            # What has no curve is infinite, and never decoded.
            rates[scheme, place, known] = np.minimum(rate, 1.0)
    rates = np.minimum.accumulate(rates, axis=-1)
    rates[..., ~known] = _continued(rates[..., known], SNR_DB[~known] - _SIMULATED_DB)
    rates[rates < _NEVER] = 0.0
    return rates, f"sionna {version('sionna-no-rt')} PUSCH table 1"


def _continued(rates: Floats, beyond_db: Floats) -> Floats:
    """Return ``q (q / q_before)^d``, d dB behind the last of ``rates``, ``q_before`` 1 dB ahead."""
    last, before = rates[..., -1:], rates[..., -11:-10]
    fall = np.where(before > 0.0, last / np.where(before > 0.0, before, 1.0), 0.0)
    return last * fall**beyond_db
