"""The table and the sentences of a choice made by hand."""

import io

from rich.console import Console

from airtune.report.rank_table import rank_sentences, rank_table


def rendered(found):
    file = io.StringIO()
    Console(file=file, width=80, color_system=None).print(rank_table(found))
    return [" ".join(line.split()) for line in file.getvalue().splitlines()]


def found(**more):
    rows = [
        {"rank": 2, "slices": 2.0, "kept": 1.0, "phi": 0.25, "dropped": 0.0, "covariance": 0.1,
         "u": 0.5, "loss": 1.25, "accuracy": 0.5, "uplink_bits": 2e6, "mean_latency_s": 0.2,
         "clients": 10, "start_loss": 2.0},
        {"rank": 8, "slices": 2.4, "kept": 0.3, "phi": 0.0, "dropped": 0.5, "covariance": 0.2,
         "u": 0.4, "loss": 1.5, "accuracy": 0.4, "uplink_bits": 3e6, "mean_latency_s": 0.3,
         "clients": 10, "start_loss": 2.0},
    ]  # fmt: skip
    c = {"phi": 2.0, "dropped": 0.8, "covariance": 0.0}
    base = {"by": "surrogate", "chosen": 8, "alpha": 16, "latency_s": 0.35, "rounds": 3,
            "proxy": "9 texts", "weights": c, "weighting": "fitted", "ranks": rows,
            "clients": 10}  # fmt: skip
    return base | more


def test_the_curve_of_the_surrogate():
    lines = rendered(found())
    assert lines[0] == "Rank under 350 ms for computing and sending"
    assert "Rank Slices Kept Phi E_sp Cov U" in lines
    assert "8 2.40 30.0 % 0.000 0.500 0.200 0.4" in lines


def test_the_curve_of_pilots():
    lines = rendered(found(by="pilot", chosen=2))
    assert "2 2.00 100.0 % 1.2500 50.0 % 2 Mbit 200 ms" in lines


def test_the_sentences_say_how_weights_were_found_and_how_to_use_the_choice():
    fitted, plain = rank_sentences(found()), rank_sentences(found(weighting="normalised"))
    assert "U = 2 Phi + 0.8 E_sp + 0 Cov: weights by nonnegative least squares" in fitted[1]
    assert "each term is 1 at rank 8" in plain[1]
    assert fitted[-1].endswith("--set adapter.rank=8 --set adapter.alpha=16")


def test_a_choice_at_the_end_of_the_range_is_said():
    assert any("8 is the largest of them" in line for line in rank_sentences(found()))
    assert any("2 is the smallest of them" in line for line in rank_sentences(found(chosen=2)))
    inside = found()
    inside["ranks"] = [*inside["ranks"], inside["ranks"][1] | {"rank": 16, "u": 0.6}]
    assert not any("no minimum inside" in line for line in rank_sentences(inside))


def test_clients_that_are_left_out_are_counted():
    assert not any("left out" in line for line in rank_sentences(found()))
    some = found(clients=12)
    assert any(line.startswith("10 of 12 clients can meet") for line in rank_sentences(some))


def test_pilots_that_learned_nothing_are_no_reason_to_choose():
    assert not any("hardly" in line for line in rank_sentences(found(by="pilot", chosen=2)))
    nothing = found(by="pilot", chosen=2)
    nothing["ranks"] = [row | {"start_loss": 1.2501} for row in nothing["ranks"]]
    assert any("hardly learned: loss 1.2501" in line for line in rank_sentences(nothing))
