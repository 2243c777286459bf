"""What the `netops` task says: intents, teams, slot values and shared phrases; no code.

Notation, expanded by `netops`: ``(a|b)`` chooses, ``<name>`` stands for ``PHRASES[name]`` and
``{name}`` for a value of ``SLOTS[name]``, the same one in a request and its answer.
"""

from __future__ import annotations

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
INTENTS = """\
latency_show
  do: <show> the <fresh> <latency> <on> {cell}
  do: <know> how (high|large|bad) the <latency> <on> {cell} is <now>
  ask: what is the <fresh> <latency> <on> {cell} <now>?
  ask: how (high|large|bad) is the <latency> <on> {cell} <now>?
  ask: is the <latency> <on> {cell} (high|up|within target|above {ms}|over {ms}) <now>?
  note: {cell} <latency> (reading|value|level|check|last {hours})
  note: <fresh> <latency> {cell}
  act: <look> the (latency|delay) (figure|reading)
  done: the (latency|delay) (figure is|readings are) <known>
  say: Here is the current latency of {cell}, averaged over the last five minutes.
  say: The latency reading of {cell} has been fetched from the live counters.
latency_explain
  do: <explain> why the <latency> <on> {cell} <grew> <lately>
  do: <explain> what <causes> the (high <latency>|<latency> of {ms}) <on> {cell}
  ask: why is the <latency> <on> {cell} (high|up|above {ms}|over {ms}) <lately>?
  ask: what <causes> the (high|rising|growing) <latency> <on> {cell}?
  ask: how come the <latency> <on> {cell} <grew> <lately>?
  note: {cell} <latency> (<grew>|above {ms}|{ms}), (cause|reason) (unknown|wanted)
  note: (high|rising) <latency> {cell}, (why|root cause|reason)
  act: <solve> the (high|rising) latency
  done: the <reason> the (high latency|delay) is known
  say: Latency on {cell} is being traced: queueing, radio retransmissions and transport are
    compared with last week.
  say: The likely causes of the latency on {cell} are load and transport delay; both are being
    checked.
latency_alarm_set
  do: <set> the <latency> <alarm> (threshold|limit|level|trigger) <on> {cell} (to|at) {ms}
  do: <begin> a <latency> <alarm> <on> {cell} (above|at|from|over) {ms}
  do: (raise|send) <an_alarm> when the <latency> <on> {cell} (passes|is above|goes over) {ms}
  ask: can the <latency> <alarm> <on> {cell} be (set|raised|lowered|moved) to {ms}?
  ask: can we (get|have) <an_alarm> if the <latency> <on> {cell} (is over|passes) {ms}?
  note: <latency> <alarm> {cell} (threshold|limit|trigger|at|above) {ms}
  note: {cell}: <alarm> if <latency> (over|above) {ms}
  act: (set|change|raise) the latency alarm (threshold|limit)
  done: the latency alarm (threshold|limit) is (set|in place|unchanged)
  say: The latency alarm of {cell} now triggers above {ms}.
  say: Done: {cell} raises an alarm when latency exceeds {ms}.
latency_alarm_silence
  do: (silence|mute|snooze|suppress|hold|<stop>) the <latency> <alarm> <on> {cell} for (the next|)
    {hours}
  do: keep the <latency> <alarm> <on> {cell} (quiet|off|silent) for (the next|) {hours}
  ask: can the <latency> <alarm> <on> {cell} be (silenced|muted|off|held|quiet) for {hours}?
  ask: can we have no <latency> <alarm> (from|on) {cell} for {hours}?
  note: {cell} <latency> <alarm> (off|mute|quiet|hold) {hours}
  note: (mute|no|hold) <latency> <alarm> {cell} {hours}
  act: (silence|mute|hold) the latency alarm
  done: the latency alarm (is silenced|is quiet|has stopped)
  say: The latency alarm of {cell} is silenced for {hours}.
  say: Done: no latency alarms from {cell} for {hours}; other alarms stay active.
handover_show
  do: <show> the <fresh> <handover> (success rate|rate|statistics|figures|failures|counters) <on>
    {cell}
  do: <know> how (often <handover> attempts fail|many <handover> failures occur) <on> {cell} <now>
  ask: what is the <fresh> <handover> (success|failure|) rate <on> {cell} <now>?
  ask: how (well|badly) does <handover> work (with {db}|) <on> {cell} <now>?
  ask: is the <handover> rate <on> {cell} (low|high|normal|within target) <now>?
  note: {cell} <handover> (rate|figures|stats|KPI|failures)
  note: <handover> (success|failure) (rate|KPI|check) {cell}
  act: <look> the handover (rate|statistics)
  done: the handover (rate is|statistics are) <known>
  say: Here is the handover success rate of {cell} for the last hour.
  say: The handover counters of {cell} have been read and the success rate is listed.
handover_explain
  do: <explain> why (the <handover> rate (on|of)|<handover> (on|from|at)) {cell} <fell> <lately>
  do: <explain> what <causes> the <handover> (failures|drops|problems) <on> {cell} <lately>
  ask: why does <handover> (fail|fail with {db}|get worse) (on|from|at) {cell} <lately>?
  ask: what <causes> the (many|) <handover> (failures|drops) <on> {cell}?
  ask: how come the <handover> rate <on> {cell} <fell> <lately>?
  note: {cell} <handover> (failures|rate <fell>), <cause>
  note: <handover> (failures|drops) {cell}, (reason unknown|root cause wanted)
  act: <solve> the handover failures
  done: the <reason> the handover failures is known
  say: The handover failures of {cell} are being sorted by target and cause; too late handovers
    come first.
  say: For {cell}, coverage gaps and missing neighbours are the usual causes of failed handovers;
    both are being checked.
handover_tune
  do: <set> the <handover> (hysteresis|margin|offset|threshold) <on> {cell} to {db}
  do: (raise|lower|increase|reduce) the <handover> (margin|offset|threshold|hysteresis) <on> {cell}
    to {db}
  ask: can the <handover> (margin|offset|threshold|hysteresis) <on> {cell} be
    (set|raised|lowered|changed) to {db}?
  ask: can {cell} (use|have|get) a <handover> (margin|offset|threshold) of {db}?
  note: {cell} <handover> (margin|offset|hysteresis|threshold) {db}
  note: <handover> (hyst|offset|threshold) {db} <on> {cell}
  act: (change|raise|lower) the handover (margin|threshold|offset)
  done: the handover (margin|threshold|offset) is (set|unchanged|in place)
  say: The handover margin of {cell} is set to {db}.
  say: Done: {cell} now hands over with a margin of {db}.
handover_neighbour_add
  do: (add|enter|<begin>|define) {neighbour} as (a|new) (<handover> |)(neighbour|target|relation)
    <on> {cell}
  do: (add|create|put|set up) a (neighbour|<handover>) relation (from|between) {cell} (to|and)
    {neighbour}
  ask: can {neighbour} (become|be added as|be set as) a (<handover> target|neighbour) <on> {cell}?
  ask: can {cell} (get|have) (<handover>|a neighbour relation) to {neighbour}?
  note: {cell} (missing|new|add) (neighbour|<handover> relation|<handover> target) {neighbour}
  note: (neighbour|<handover> target) {neighbour} (missing|to add) <on> {cell}
  act: (add|define) a (new neighbour|handover target|neighbour relation)
  done: the (neighbour|handover) relation is (in place|defined)
  say: {neighbour} is now a handover neighbour of {cell}.
  say: Done: the neighbour relation from {cell} to {neighbour} has been added.
energy_enable
  do: <begin> <saving> <on> {cell} (from|at|after) {clock}
  do: (let {cell} (sleep|save energy)|put {cell} (to sleep|into <saving>)) (from|at|after) {clock}
  ask: can {cell} (sleep|save energy|go into <saving>|use <saving>) (from|after) {clock}?
  ask: can we (have|use|get|allow) <saving> <on> {cell} (from|after) {clock}?
  note: {cell} <saving> (on|start|from|allowed) {clock}
  note: <saving> <on> {cell} (from|after) {clock}
  act: (switch on|enable|start) (energy saving|sleep mode)
  done: (energy saving|sleep mode) is (active|on|running)
  say: Energy saving on {cell} will start at {clock}.
  say: Done: {cell} enters sleep mode from {clock} on.
energy_disable
  do: <stop> <saving> <on> {cell} (from|at|after) {clock}
  do: (wake|wake up|keep|bring back|get) {cell} (out of|from) <saving> (from|at|after) {clock}
  ask: can {cell} (stay awake|stay on|leave <saving>|be without <saving>) (from|after) {clock}?
  ask: can we (have|get) no <saving> <on> {cell} (from|after) {clock}?
  note: {cell} <saving> (off|stop|ends|not allowed) {clock}
  note: no <saving> <on> {cell} (from|after) {clock}
  act: (switch off|disable|end) (energy saving|sleep mode)
  done: (energy saving|sleep mode) is (off|over|stopped)
  say: Energy saving on {cell} will be switched off at {clock}.
  say: Done: {cell} stays awake from {clock} on.
energy_report
  do: <show> the (energy|power) (saved|used|drawn) (at|by) {site} (over {months}|<lately>)
  do: <know> how much (energy|power) (<saving> saved|was used|was saved) (at|by) {site} <lately>
  ask: how much (energy|power) (did|does) <saving> (save|bring|yield) <on> {site} <lately>?
  ask: what is the (energy|power) (use|bill|consumption|saving) <on> {site} <now>?
  note: {site} (energy|power) (use|report|figures|saved), last {months}
  note: <saving> (result|report|yield|figures) {site}
  act: <look> the energy (report|figures)
  done: the (energy|power) (figures are|report is) (known|out|on the dashboard)
  say: Here is the energy report of {site} with use and savings for the time asked.
  say: Energy use and savings at {site} have been read from the meters.
ticket_open
  do: (open|raise|create|log|file|write|start|put in) (a|a new|another) <ticket> (for|about|on) the
    <trouble> at {site}
  do: (report|log|record) the <trouble> at {site} (as|in|under) (a|a new) <ticket>
  ask: can we (get|have|open|raise) (a|a new) <ticket> (for|about) the <trouble> at {site}?
  ask: who can (open|raise|log|write) (a|a new) <ticket> (for|about) <trouble> at {site}?
  note: new <ticket>: <trouble> {site}
  note: {site} <trouble>, (ticket needed|no ticket yet|ticket please)
  act: (open|raise|log) a (new ticket|ticket|case)
  done: a (ticket|case) is (open|logged)
  say: A new ticket has been opened for {site}; its number follows by mail.
  say: Done: the problem at {site} is logged in a new ticket.
ticket_status
  do: <show> the <fresh> (state|status|progress|history) of (<ticket>|the <ticket> about the
    <trouble>,) {ticket}
  do: <know> (whether|if) <case> {ticket} is (closed|open|assigned|solved|still open) <now>
  ask: is <case> {ticket} (closed|open|assigned to someone|solved|still open) <now>?
  ask: what is the (state|status|progress) of <case> {ticket} <now>?
  ask: who (has|works on|owns|looks into) <case> {ticket} <now>?
  note: {ticket} (status|state|progress|still open|any news)
  note: (status|news|progress) (on|of) {ticket}
  act: <look> the (ticket|case) (status|history)
  done: the (status of the ticket|ticket history) is (known|in the report)
  say: Here is the current status of {ticket} with its last update.
  say: {ticket} has been looked up: state, owner and last note are listed.
ticket_close
  do: (close|resolve|end|finish|complete|settle) <case> {ticket}, the <trouble> (is solved|is
    over|is gone|has stopped)
  do: (set|put|move|change) <case> {ticket} to (closed|done|solved|resolved)
  ask: can <case> {ticket} be (closed|resolved|ended) (now|), as the <trouble> is
    (over|gone|solved)?
  ask: can we (close|end|settle|resolve) <case> {ticket} <now>?
  note: {ticket} (solved|done|to close|can be closed|finished)
  note: (close|end|resolved) {ticket}, <trouble> (gone|over|solved)
  act: (close|resolve) the (ticket|case)
  done: the (other|old) (ticket|case) is (closed|solved)
  say: {ticket} is closed as resolved.
  say: Done: {ticket} has been closed and its reporter informed.
ticket_assign
  do: (assign|give|hand|pass|move|send|put|forward|transfer) <case> {ticket} to {person}
  do: (make {person} the owner of|put {person} (in charge of|on)) <case> {ticket}
  ask: can {person} (take|get|have|take over|own) <case> {ticket}?
  ask: can <case> {ticket} (go|move|be handed|be passed) to {person}?
  note: {ticket} (to|for|owner|now with) {person}
  note: (assign|owner|transfer) {ticket}: {person}
  act: (assign|hand over|pass on) the (ticket|case)
  done: the (ticket|case) (has an owner|is assigned)
  say: {ticket} is now assigned to {person}.
  say: Done: {person} owns {ticket} and has been notified.
outage_report
  do: (note|log|report|record|take note of) (the|the new) <outage> at {site} <lately>
  do: (note|report|record) that {site} (is down|is off air|has no signal|lost service) <lately>
  ask: did you (see|know|note) that {site} is (down|off air|dead) <lately>?
  ask: can you see the (new|) <outage> at {site} <now>?
  ask: {site} (is down|has no signal|is off air) <now>, do you see it?
  note: {site} (down|off air|dead|no signal|no service) <lately>
  note: (new|) <outage> {site} <lately>
  act: (report|log) (an|the) outage
  done: the outage (is known|was reported)
  say: Thank you, the outage at {site} is recorded and the duty engineer is informed.
  say: The service loss at {site} has been logged and checks have started.
outage_eta
  do: <know> when (the <outage> at {site} (ends|is over)|{site} is back (on air|in service|))
  do: <show> the (expected end|repair time|end time|restoration time) of the <outage> at {site}
  ask: when (will|does) the <outage> at {site} (end|be over|be fixed|be solved)?
  ask: when (will|can) {site} be (back|up|on air|working) again?
  ask: how long (does|will) the <outage> at {site} (last|go on) <now>?
  note: {site} <outage> (ETA|end|until when|repair time)
  note: (ETA|end time|back when) {site} <outage>
  act: (tell|estimate) the (end|repair time) of the outage
  done: the (end|repair time) of the outage is known
  say: The expected time of restoration for {site} is shown in the outage calendar.
  say: Repair at {site} is under way; the estimated end of the outage is sent to you.
outage_explain
  do: <explain> why (there (is|was) the <outage> at {site}|{site} (went down|is down|lost
    service|was off air)) <lately>
  do: <explain> what (caused|is behind|led to) the <outage> at {site} <lately>
  ask: why (is|was) {site} (down|off air|dead|without signal) <lately>?
  ask: what (caused|is behind|led to) the <outage> at {site} <lately>?
  ask: how come {site} (went down|lost service|was off air) <lately>?
  note: {site} <outage>, <cause>
  note: (cause|reason|root cause) of <outage> {site}
  act: <solve> the outage
  done: the <reason> the outage is known
  say: The outage at {site} is being analysed: power, transport and hardware logs are compared.
  say: For {site}, mains power and the transport link are checked first as causes of the outage.
sim_activate
  do: <begin> {sim} (for|on) the (new|) (line|customer|meter|device|contract)
  do: (unblock|release|provision|unlock) {sim} <now>
  do: (lift|end|remove|take off) the (block|lock|suspension) (on|of) {sim}
  ask: can {sim} be (activated|enabled|unblocked|put in service|switched on)?
  ask: can the (customer|device|meter) use {sim} from (today|now) on?
  note: {sim} (on|activate|to provision|unblock|in service)
  note: (activate|provision|unblock|enable) {sim}
  act: (activate|unblock|provision) the SIM
  done: the SIM is (active|in service|unblocked)
  say: {sim} is active and may register within a few minutes.
  say: Done: {sim} has been provisioned and put in service.
sim_block
  do: (block|lock|bar|<stop>) {sim}, (it was stolen|it is lost|the customer left|misuse is
    suspected|the device was sold)
  do: (put|set) a (block|lock|bar) (on|for) {sim} <now>
  ask: can {sim} be (blocked|locked|disabled|switched off|taken out of service) <now>?
  ask: can we (block|lock|bar|disable|suspend) {sim} for the customer?
  note: {sim} (off|block|lost|stolen|out of service)
  note: (block|lock|disable|bar) {sim}
  act: (block|lock|bar) the SIM
  done: the SIM is (blocked|out of service|locked)
  say: {sim} is blocked and can no longer register.
  say: Done: {sim} has been barred from the network.
sim_status
  do: <show> the <fresh> (state|status|registration|usage) of {sim}
  do: <know> (whether|if) {sim} is (active|blocked|in service|registered|provisioned|lost) <now>
  ask: is {sim} (active|blocked|in service|registered|barred|enabled) <now>?
  ask: what is the (state|status) of {sim} <now>?
  ask: where is {sim} (registered|in use|active) <now>?
  note: {sim} (status|state|active or blocked|registered|check)
  note: (status|state|check) {sim}
  act: <look> the SIM (status|state)
  done: the (status|state) of the SIM is (known|in the report)
  say: Here is the status of {sim} as stored in the subscriber database.
  say: {sim} has been looked up: its state and last registration are listed.
slice_create
  do: (create|<begin>|build|add|define|order) (a|a new) <slice> {slice} with {rate}
  do: (provision|deploy|make) <slice> {slice} (at|with|for) {rate}
  ask: can we (get|have|order|open|set up) (a|a new) <slice> {slice} with {rate}?
  ask: can (a|a new) <slice> {slice} be (added|built|provided|created) with {rate}?
  note: new <slice> {slice} {rate}
  note: <slice> {slice} (to build|create|order), {rate}
  act: (create|set up) a new slice
  done: the new slice is (active|in place)
  say: Slice {slice} is created with {rate} guaranteed.
  say: Done: the new slice {slice} is active with {rate}.
slice_resize
  do: (<set>|raise|increase|extend|reduce|cut|lower) the (rate|capacity|bandwidth|share) of <slice>
    {slice} to {rate}
  do: (give|grow|resize|move|scale) <slice> {slice} to {rate}
  ask: can <slice> {slice} be (raised|reduced|extended|set|scaled) to {rate}?
  ask: can <slice> {slice} (get|have|go to|move to) {rate} (instead|from today|now)?
  note: <slice> {slice} (now|new rate|change to|up to) {rate}
  note: (resize|change|raise) <slice> {slice} {rate}
  act: (resize|change|extend) the slice
  done: the slice (rate|bandwidth) is (set|unchanged)
  say: The rate of slice {slice} is changed to {rate}.
  say: Done: slice {slice} now has {rate}.
slice_show
  do: <show> the <fresh> (rate|load|usage|state|capacity|bandwidth|latency) of <slice> {slice}
  do: <know> (whether|if) <slice> {slice} (is active|gets its rate|is in service|is full|meets the
    SLA) <now>
  ask: what (rate|bandwidth|capacity|load) does <slice> {slice} (have|get|use) <now>?
  ask: is <slice> {slice} (active|full|in service|within its SLA|up) <now>?
  ask: how <full> is <slice> {slice} <now>?
  note: <slice> {slice} (status|rate|load|usage|SLA check)
  note: (status|load|rate) <slice> {slice}
  act: <look> the slice (load|rate)
  done: the slice (load is|figures are) <known>
  say: Here are the current load and rate of slice {slice}.
  say: Slice {slice} has been looked up: state, rate and SLA figures are listed.
capacity_show
  do: <show> the <fresh> <room> <on> {site}
  do: <know> how <full> {site} is <now>
  ask: how <full> is {site} <now>?
  ask: what is the <fresh> <room> <on> {site} <now>?
  ask: is there (enough|any|spare) <room> (left|) at {site} <now>?
  note: {site} <room> (figure|level|now|check|KPI)
  note: <fresh> <room> {site}
  act: <look> the capacity (figures|usage)
  done: the capacity (usage is|figures are) <known>
  say: Here is the current load of {site} in per cent of its capacity.
  say: The busy-hour load of {site} has been read from the counters.
capacity_forecast
  do: (forecast|predict|estimate|project|<show>) the <room> <on> {site} (in|for the next|over the
    next|for) {months}
  do: <know> (whether|if|when) {site} (is full|runs out of <room>|needs more <room>) (in|within the
    next) {months}
  ask: how <full> will {site} be in {months}?
  ask: will {site} (be full|run out of <room>|have enough <room>) in {months}?
  ask: what will the <room> <on> {site} be in {months}?
  note: {site} <room> (forecast|trend|outlook|in) {months}
  note: <room> (forecast|in|trend) {months} {site}
  act: (forecast|predict) the (capacity|load)
  done: the (capacity|load) forecast is (known|out)
  say: The load forecast of {site} for the next {months} is being prepared from two years of busy
    hours.
  say: Here is the expected load of {site} over {months}, with its uncertainty.
capacity_expand
  do: (add|<begin>|deploy|put) (band|carrier) {band} (at|on|to) {site} (for more <room>|)
  do: (expand|extend|increase|raise|upgrade) the (capacity|headroom) <on> {site} (with|by)
    (band|carrier) {band}
  ask: can {site} (get|have|use) (band|carrier) {band} (for more <room>|)?
  ask: can we (add|activate|deploy|have) (band|carrier) {band} at {site}?
  note: {site} (add|new|more capacity with|extra carrier) {band}
  note: (band|carrier) {band} (on|to add|for) {site}
  act: (add|activate) (a carrier|capacity)
  done: (the new carrier|more capacity) is in place
  say: Carrier {band} will be added at {site}; the licence has been checked.
  say: Done: {site} is planned for expansion with band {band}.
backhaul_show
  do: <show> the <fresh> (load|usage|utilisation|state|delay|rate) of <link> {link}
  do: <know> (how <full> <link> {link} is|if <link> {link} is up) <now>
  ask: how <full> is <link> {link} <now>?
  ask: is <link> {link} (up|full|down|as busy as {spare}|stable) <now>?
  ask: what (load|traffic|rate) does <link> {link} (carry|have) <now>?
  note: <link> {link} (load|usage|status|check|and {spare} load)
  note: (load|status|usage) <link> {link}
  act: <look> the backhaul (load|usage)
  done: the backhaul (load is|figures are) <known>
  say: Here is the utilisation of backhaul link {link} for the last hour.
  say: Link {link} has been polled: state and load are listed.
backhaul_reroute
  do: (reroute|move|shift|divert|switch|hand|put|send) the <traffic> (of|from|on) <link> {link}
    (to|over to|onto|via) {spare}
  do: (use|open|bring up|activate) {spare} (for|instead of|to relieve) <link> {link}
  ask: can the <traffic> (of|on|from) <link> {link} (go over|move to|run on|use) {spare}?
  ask: can {spare} (carry|take|take over|have) the <traffic> of <link> {link}?
  note: <link> {link} (to|via|over to|move to) {spare}
  note: (reroute|divert|switch) {link} {spare}
  act: (reroute|move|divert) the backhaul traffic
  done: the backhaul traffic (was moved|is on the spare link)
  say: Traffic of {link} is moved to {spare}.
  say: Done: {spare} now carries the traffic of {link}.
backhaul_explain
  do: <explain> why <link> {link} (is full|is down|drops packets|is so slow|flaps|is overloaded)
    <lately>
  do: <explain> what <causes> the (delay|loss|drops|load|alarm) on <link> {link} <lately>
  ask: why is <link> {link} (full|down|so slow|slower than {spare}) <lately>?
  ask: what <causes> the (delay|loss|load|drops) on <link> {link} <lately>?
  ask: how come <link> {link} (drops packets|flaps|went down|is full) <lately>?
  note: <link> {link} (loss|slow|flaps|full|worse than {spare}), <cause>
  note: (cause|reason) of (loss|delay|drops) <link> {link}
  act: <solve> the backhaul (loss|delay)
  done: the <reason> the backhaul (loss|delay) is known
  say: Link {link} is being analysed: fading, congestion and port errors are compared.
  say: For {link}, rain fading and port errors are checked first as causes.
roaming_enable
  do: <begin> roaming (in|for) {country} (for|on) {sim}
  do: (allow|permit) {sim} to (roam|use roaming|register|get data) in {country}
  ask: can {sim} (roam|use roaming|get roaming) in {country} (from now on|from today|)?
  ask: can we (allow|open|enable|have) roaming in {country} for {sim}?
  note: {sim} roaming {country} (on|allow|open|please)
  note: roaming (on|allow|for) {sim} {country}
  act: (enable|open|allow) roaming
  done: roaming is (active|open|allowed)
  say: Roaming in {country} is enabled for {sim}.
  say: Done: {sim} may now register with partner networks in {country}.
roaming_disable
  do: <stop> roaming (in|for) {country} (for|on) {sim}
  do: (keep|bar|block|stop) {sim} from (roaming|using roaming|registering) in {country}
  ask: can roaming in {country} be (blocked|off|disabled|stopped|barred) for {sim}?
  ask: can we (block|end|close|have no|stop) roaming in {country} for {sim}?
  note: {sim} roaming {country} (off|block|close|bar)
  note: (no|block|end) roaming {sim} {country}
  act: (disable|block|end) roaming
  done: roaming is (blocked|off|closed)
  say: Roaming in {country} is blocked for {sim}.
  say: Done: {sim} can no longer register abroad in {country}.
roaming_explain
  do: <explain> why {sim} (cannot|does not|is not able to|failed to) (roam|register|get data|use
    roaming) in {country} <lately>
  do: <explain> what (blocks|stops|is behind the loss of) roaming (of|for) {sim} in {country}
  ask: why (does|did|can) {sim} not (roam|register|get roaming|work) in {country} <lately>?
  ask: what (blocks|stops|bars) roaming in {country} for {sim}?
  ask: how come roaming (fails|does not work|is off|is blocked) in {country} for {sim}?
  note: {sim} (no roaming|roaming fails) {country}, <cause>
  note: roaming (fault|failure|loss) {sim} {country}, (why|cause)
  act: <solve> the roaming (fault|failure)
  done: the <reason> the roaming fault is known
  say: The roaming failure of {sim} in {country} is being traced in the signalling logs.
  say: For {sim}, the roaming profile and the agreement with {country} are being checked.
firmware_show
  do: <show> the <fresh> <software> <on> {cell}
  do: <know> (which|what) <software> {cell} (runs|has|is on) <now>
  ask: (which|what) <software> (does {cell} run|is on {cell}|does {cell} have) <now>?
  ask: is the <software> <on> {cell} (current|up to date|the latest|old) <now>?
  note: {cell} <software> (check|status|level|which)
  note: <fresh> <software> {cell}
  act: <look> the firmware (version|release)
  done: the firmware (version|release) is (known|in the report)
  say: Here is the firmware release that {cell} runs now.
  say: The software inventory of {cell} has been read.
firmware_upgrade
  do: (upgrade|update|move|bring|raise|take) (the <software> (of|on) |){cell} to {version}
  do: (install|load|deploy|put|activate|roll out) <software> {version} on {cell}
  ask: can {cell} (get|have|move to|go to|be upgraded to) (<software> |){version}?
  ask: can we (install|load|deploy|put|have) <software> {version} on {cell}?
  note: {cell} <software> (to|new|update|upgrade) {version}
  note: (install|update|load) {version} {cell}
  act: (upgrade|update) the firmware
  done: the firmware (upgrade|update) is (done|planned)
  say: The upgrade of {cell} to {version} is scheduled for the next maintenance window.
  say: Done: {version} will be installed on {cell} tonight.
firmware_rollback
  do: (roll back|revert|return|take back|move back|restore|bring back) (the <software> (of|on)
    |){cell} to {version}
  do: (undo|back out|revert) the <software> (update|upgrade|change) on {cell} and (go back
    to|restore|return to) {version}
  ask: can {cell} (go back|return|be moved back|be reverted) to (<software> |){version}?
  ask: can we (undo|revert|back out) the update and have {version} (back|again) on {cell}?
  note: {cell} <software> (back to|revert|restore|old) {version}
  note: (revert|back to|restore) {version} {cell}
  act: (roll back|revert|undo) the firmware
  done: the firmware (was rolled back|is back on the old release)
  say: The rollback of {cell} to {version} has begun; expect a short restart.
  say: Done: {version} is restored on {cell}.
tilt_show
  do: <show> the <fresh> <tilt> <on> {cell}
  do: <know> (what|how (steep|large)) the <tilt> <on> {cell} is <now>
  ask: what is the <fresh> <tilt> <on> {cell} <now>?
  ask: how many degrees (is|has) the <tilt> <on> {cell} <now>?
  ask: is the <tilt> (of|on) {cell} (correct|too low|at {degrees}|above {degrees})?
  note: {cell} <tilt> (check|reading|status|still {degrees})
  note: <fresh> <tilt> {cell}
  act: <look> the tilt (setting|reading)
  done: the tilt (setting|reading) is (known|in the report)
  say: Here is the electrical tilt of {cell} as read from its antenna.
  say: The tilt reading of {cell} has been fetched from the remote control unit.
tilt_change
  do: (<set>|raise|lower|increase|reduce) the <tilt> <on> {cell} to {degrees}
  do: (turn|tilt|lower|bring) the antenna <on> {cell} (down |)to {degrees}
  ask: can the <tilt> <on> {cell} be (set|changed|raised|lowered) to {degrees}?
  ask: can {cell} (get|have|go to|use) (a|) <tilt> of {degrees}?
  note: {cell} <tilt> (to|now|new|change) {degrees}
  note: <tilt> {degrees} <on> {cell}
  act: (change|lower|raise) the tilt
  done: the tilt is (set|unchanged|as planned)
  say: The tilt of {cell} is set to {degrees}.
  say: Done: {cell} now has an electrical tilt of {degrees}.
interference_show
  do: <show> the <fresh> <noise> (level|figures|reading|) (in|on) band {band} at {site}
  do: <know> how (strong|high|bad) the <noise> (in|on) band {band} is at {site} <now>
  ask: how (strong|high|bad) is the <noise> (in|on) band {band} at {site} <now>?
  ask: what is the <fresh> <noise> (level|) (in|on) band {band} at {site} <now>?
  ask: is there (any <noise>|<noise> above {db}) (in|on) band {band} at {site} <now>?
  note: {site} {band} <noise> (level|reading|check|figure)
  note: <fresh> <noise> {band} {site}
  act: <look> the interference (level|figures)
  done: the interference (level is|figures are) <known>
  say: Here is the interference level in band {band} at {site} for the last hour.
  say: The uplink noise of band {band} at {site} has been read.
interference_locate
  do: (find|locate|trace|hunt down|look for|track) the (source|origin|sender|cause) of the <noise>
    (in|on) band {band} at {site}
  do: <explain> (where|what|who) (causes the <noise>|the <noise> comes from) (in|on) band {band} at
    {site}
  ask: where does the <noise> (in|on) band {band} at {site} come from?
  ask: (who|what) (causes|is behind) the <noise> (in|on) band {band} at {site} <lately>?
  ask: why is the <noise> (in|on) band {band} at {site} (high|up by {db}|above {db}) <lately>?
  note: {site} {band} <noise>, (source|origin|cause|from where)
  note: (source|origin|trace) of <noise> {band} {site}
  act: (find the source of|trace) the interference
  done: the (source|origin) of the interference is known
  say: A search for the source of interference in band {band} around {site} has started.
  say: The interferer in band {band} at {site} is being located with neighbouring receivers.
volte_show
  do: <show> the <fresh> <voice> (drop rate|success rate|quality|figures|statistics) <on> {site}
  do: <know> how (many|often) <calls> (drop|fail|break off) at {site} <now>
  ask: what is the <fresh> <voice> (drop rate|quality|success rate) at {site} <now>?
  ask: how often (do|did) <calls> (drop|fail) at {site} <lately>?
  ask: is the <voice> quality at {site} (normal|low|within target) <now>?
  note: {site} <voice> (drop rate|quality|KPI|stats)
  note: <voice> (figures|drops|check|quality) {site}
  act: <look> the (VoLTE|call) (figures|statistics)
  done: the (VoLTE|call) (figures|statistics) are <known>
  say: Here is the VoLTE drop rate of {site}, hour by hour.
  say: The voice quality counters of {site} have been read.
volte_explain
  do: <explain> why <calls> (drop|fail|break off|are silent) at {site} <lately>
  do: <explain> what <causes> the <voice> (drops|failures|silence) at {site} <lately>
  ask: why do <calls> (drop|fail|break off) at {site} <lately>?
  ask: what <causes> the <voice> (drops|failures) at {site}?
  ask: how come the <voice> quality at {site} <fell> <lately>?
  note: {site} <voice> (drops|failures), <cause>
  note: (cause|reason) of <voice> (drops|failures) {site}
  act: <solve> the (call|VoLTE) drops
  done: the <reason> the (call|VoLTE) drops is known
  say: The VoLTE drops at {site} are being compared with coverage and handover traces.
  say: For {site}, weak uplink coverage and bearer loss are checked first as causes of dropped
    calls.
"""

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
