"""What the `netops` task says: intents, teams, slot values and shared phrases; no code.

Notation, expanded by `netops`: ``(a|b)`` chooses, ``<name>`` stands for ``PHRASES[name]`` and
``{name}`` for a value of ``SLOTS[name]``, the same one in a request and its answer.
"""

from __future__ import annotations

from importlib import resources
from typing import NamedTuple


class Team(NamedTuple):
    """An organisational team: its share of each topic and its habits of writing."""

    topics: dict[str, int]  # weight by topic; a topic not named weighs 1
    styles: tuple[int, int, int]  # weights of command, question, terse
    frames: tuple[str, ...]  # around a command, which replaces the star
    greeting: str
    closing: str
    cell: str  # what the team calls a cell
    short: float  # probability of writing in abbreviations
    typos: float  # probability of a slip of the fingers
    lower: bool  # begins in lower case and leaves out the full stop


ASIDES = 0.4  # share of requests that mention another intent in passing

PHRASES = {
    # Verbs are shared between intents on purpose: none of them may give an intent away.
    "show": "(show|show me|give me|pull up|get|tell me|send me|check|look up|report|read out)",
    "know": "(check|see|tell me|find out|look up|look into|let me know|report|confirm)",
    "explain": "(explain|find out|work out|tell me|check|look into|see|investigate|report|clarify)",
    "set": "(set|change|adjust|move|put|update|correct|bring)",
    "begin": "(start|activate|enable|switch on|turn on|put in place|set up|bring up|open)",
    "stop": "(stop|deactivate|disable|switch off|turn off|suspend|take off|end|lift)",
    "look": "(look up|check|report|read out|send me|fetch)",
    "solve": "(explain|find the cause of|find out the reason for)",
    "cause": "(cause|reason|why|root cause)",
    "reason": "(cause of|reason for)",
    "causes": "(causes|is behind|drives|leads to)",
    "known": "(known|in the report|on the dashboard)",
    "on": "(on|at|of|for)",
    "full": "(full|loaded|busy)",
    "voice": "(VoLTE|voice|call)",
    "calls": "(VoLTE calls|calls|voice calls)",
    "case": "(<ticket>|)",
    "fresh": "(|current|latest|present|live|last known|actual)",
    "now": "(|now|right now|at the moment|at present|today|as we speak)",
    "lately": "(|since yesterday|since midnight|for {hours}|overnight|this week|again)",
    "grew": "(rose|went up|climbed|jumped|is up|is so high|keeps growing|has doubled|got worse)",
    "fell": "(fell|dropped|went down|is so low|is down|keeps falling|collapsed|got worse)",
    "latency": "(latency|latency|delay|round-trip time|response time|lag)",
    "an_alarm": "(an alarm|an alert|a warning|a notification)",
    "alarm": "(alarm|alarm|alert|warning|notification)",
    "handover": "(handover|handover|cell change|mobility)",
    "saving": "(energy saving|power saving|sleep mode|night sleep|energy saving mode)",
    "ticket": "(ticket|ticket|case|incident|report)",
    "outage": "(outage|outage|service loss|blackout|loss of service|interruption)",
    "slice": "(slice|slice|network slice|virtual network)",
    "room": "(capacity|capacity|headroom|load|traffic|PRB usage)",
    "link": "(backhaul|backhaul|transport link|microwave link|backhaul link)",
    "traffic": "(traffic|load|data|flows)",
    "software": "(firmware|firmware|software|release|software version)",
    "tilt": "(tilt|tilt|downtilt|antenna angle|electrical tilt|antenna tilt)",
    "noise": "(interference|interference|noise|uplink noise|interfering signal)",
    "trouble": "(outage|latency|handover failures|interference|dropped calls|firmware fault"
    "|backhaul alarm|roaming fault|capacity problem|SIM fault)",
    # Words around a request.
    "noneed": "(no need to|please do not|we are not asking you to|there is no need to"
    "|it is too early to|another team will|do not|I did not ask to|later we will)",
    "join": "(, but|;|.|, so|, and now)",
    "add": "(;|.|,)",
}

SLOTS = {
    "cell": tuple(str(n) for n in range(1000, 5000, 7)),
    "neighbour": tuple(str(n) for n in range(5000, 7000, 7)),
    "site": tuple(
        f"{first} {second}"
        for first in ("North", "South", "Old", "Upper", "Lower", "Mill", "Stone", "River", "Kings")
        for second in ("Harbour", "Market", "Bridge", "Park", "Hill", "Depot", "Quay", "Cross")
    ),
    "ms": tuple(f"{n} ms" for n in range(10, 125, 5)),
    "hours": tuple(f"{n} hours" for n in (2, 3, 4, 6, 8, 12, 24, 36, 48)),
    "clock": tuple(f"{h:02}:{m:02}" for h in range(24) for m in (0, 15, 30, 45)),
    "db": tuple(f"{n / 2} dB" for n in range(1, 13)),
    "ticket": tuple(f"INC-{n}" for n in range(20011, 90000, 97)),
    "person": ("Amara", "Bo", "Carla", "Deniz", "Elif", "Farid", "Greta", "Hugo", "Ines", "Jonas"),
    "sim": tuple(f"SIM {n}" for n in range(310007, 990000, 1931)),
    "slice": tuple(
        f"{name}-{n}"
        for name in ("gold", "video", "meter", "port", "rescue", "factory")
        for n in range(1, 10)
    ),
    "rate": tuple(f"{n} Mbit/s" for n in range(20, 520, 20)),
    "months": tuple(f"{n} months" for n in (2, 3, 4, 6, 9, 12, 18)),
    "band": ("n1", "n3", "n7", "n28", "n41", "n78", "B3", "B7", "B20", "B28"),
    "link": tuple(f"BH-{n}" for n in range(101, 400, 3)),
    "spare": tuple(f"MW-{n}" for n in range(401, 700, 3)),
    "country": (
        "Brazil",
        "Canada",
        "Ghana",
        "India",
        "Japan",
        "Kenya",
        "Norway",
        "Spain",
        "Turkey",
    ),
    "version": tuple(f"R{a}.{b}.{c}" for a in range(21, 26) for b in range(1, 5) for c in range(4)),
    "degrees": tuple(f"{n} degrees" for n in range(2, 13)),
}

SHORT = {
    "please": "pls",
    "latency": "lat",
    "handover": "HO",
    "interference": "interf",
    "firmware": "FW",
    "capacity": "cap",
    "threshold": "thr",
    "customer": "cust",
    "minutes": "min",
    "neighbour": "nbr",
    "temporarily": "temp",
    "configuration": "config",
    "right now": "rn",
    "without": "w/o",
    "with": "w/",
    "tonight": "tonite",
    "and": "&",
}

TEAMS = {
    "radio_noc": Team(
        {"latency": 6, "handover": 12, "interference": 12, "tilt": 5, "outage": 4, "energy": 3},
        (4, 2, 6),
        ("*", "*", "* asap", "need to *", "pls *"),
        "(||NOC:|shift B:)",
        "(||thx|prio 2|urgent)",
        "cell",
        0.5,
        0.16,
        True,
    ),
    "core_noc": Team(
        {"latency": 12, "volte": 14, "roaming": 8, "slice": 6, "sim": 4},
        (6, 4, 2),
        ("*", "please *", "we need to *", "kindly *"),
        "(||core desk here,|for the core:)",
        "(||thank you|before the review)",
        "gNB",
        0.2,
        0.05,
        False,
    ),
    "field_service": Team(
        {"outage": 14, "tilt": 12, "ticket": 8, "firmware": 5, "backhaul": 4, "interference": 4},
        (6, 4, 3),
        ("*", "can you *?", "on site now, *", "I have to *", "need you to *"),
        "(||hey,|from the mast:|hi,)",
        "(||cheers|standing next to it|battery is low)",
        "sector",
        0.3,
        0.25,
        True,
    ),
    "care": Team(
        {"sim": 14, "roaming": 14, "outage": 6, "volte": 8, "ticket": 6, "latency": 2},
        (4, 8, 0),
        ("could you please *?", "would you be so kind as to *?", "my customer asks you to *"),
        "(|hello,|good morning,|dear team,|I have a customer waiting:)",
        "(|thank you very much|many thanks in advance|the customer is upset|kind regards)",
        "cell",
        0.0,
        0.08,
        False,
    ),
    "planning": Team(
        {"capacity": 18, "tilt": 8, "handover": 6, "interference": 5, "energy": 3},
        (5, 6, 1),
        ("we would like to *", "please *", "for the plan, *", "can you *?", "I want you to *"),
        "(||for next quarter,|planning question:)",
        "(||for the roll-out plan|as input to the budget|no rush)",
        "cell",
        0.1,
        0.03,
        False,
    ),
    "transport": Team(
        {"backhaul": 20, "latency": 6, "outage": 4, "capacity": 4, "firmware": 3},
        (6, 3, 4),
        ("*", "please *", "we must *", "* during the night window"),
        "(||transport here,|ring 4:)",
        "(||over|done by tonight)",
        "node",
        0.3,
        0.08,
        True,
    ),
    "energy": Team(
        {"energy": 22, "capacity": 5, "outage": 3, "firmware": 2},
        (6, 5, 2),
        ("*", "let us *", "can you *?", "time to *", "to cut the bill, *"),
        "(||green team:|hi all,)",
        "(||for the energy report|without hurting users)",
        "cell",
        0.1,
        0.06,
        False,
    ),
    "enterprise": Team(
        {"slice": 16, "latency": 7, "ticket": 7, "capacity": 2, "volte": 2},
        (5, 6, 1),
        ("could you *?", "our client wants you to *", "please *", "I would ask you to *"),
        "(||hello,|on behalf of the port authority,|SLA desk:)",
        "(||the contract requires it|thanks|the client is on the phone)",
        "cell",
        0.05,
        0.04,
        False,
    ),
    "iot_desk": Team(
        {"sim": 14, "slice": 5, "firmware": 8, "roaming": 8, "energy": 2},
        (6, 3, 4),
        ("*", "*", "bot: *", "pls *", "need to *"),
        "(||iot:|fleet desk:)",
        "(||ty|bulk job follows|meters affected)",
        "cell",
        0.45,
        0.12,
        True,
    ),
    "vendor_desk": Team(
        {"firmware": 18, "ticket": 10, "handover": 5, "interference": 3, "volte": 3},
        (6, 4, 2),
        ("please *", "kindly *", "as agreed, *", "can your side *?", "we ask you to *"),
        "(||vendor support:|good day,|regarding our call:)",
        "(||logs attached|best regards|awaiting confirmation)",
        "eNodeB",
        0.1,
        0.06,
        False,
    ),
}

# An intent's `do`, `ask` and `note` lines are commands, questions and terse notes; the first `say`
# answers questions, the second the rest, and every request names all of their slots. `act` (a
# base-form verb phrase) and `done` (a clause) are what requests with *other* intents say of it
# in passing, so that a word of one intent also occurs under the others.
INTENTS = resources.files(__package__).joinpath("netops_intents.txt").read_text(encoding="utf-8")

# What the pretraining corpus adds: replies that answer nothing, and settings for the facts.
CHAT = (
    "(good|right|fine), (I will|we will|let me) (take care of it|have a look|see to it).",
    "(give me|it takes) (a minute|half an hour|a moment).",
    "(not before|only after) the (shift change|maintenance window|weekend).",
    "(who asked for it|since when|is it urgent)?",
    "(noted|understood|copy that), (on it|thank you|next in the queue).",
)

SCENES = (
    "(On|Late on|Early on) (Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)",
    "(During|Before|After) (the night shift|the storm|the football match|the audit|lunch)",
    "(At|Around|Shortly after) {clock}",
    "(Last week|This morning|Once more|In the meantime)",
)
