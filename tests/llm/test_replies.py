"""Answers of an LLM: what is in the form is read, everything else is refused."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_batch.llm.replies import (
    NotInForm,
    Reply,
    WrittenToken,
    grade,
    order,
    read_completion,
    read_reply,
    yes_over_no,
)
from rerank_batch.services.usage import Usage


def reply(text="", *places):
    """Each place: what was written, and the probabilities of what could have been."""
    return Reply(
        text,
        [
            WrittenToken(token, [(other, math.log(share)) for other, share in shares.items()])
            for token, shares in places
        ],
    )


def test_yes_over_no_adds_the_ways_to_write_a_word():
    shares = {"yes": 0.3, " Yes": 0.2, "YES\n": 0.1, "No": 0.15, "no": 0.05, "not": 0.1, "y": 0.1}
    assert yes_over_no(reply("no", ("no", shares))) == pytest.approx(math.log(0.6 / 0.2))


@pytest.mark.parametrize(
    ("shares", "expected"),
    [({"yes": 0.9, "The": 0.01}, math.log(0.9 / 0.01)), ({"no": 1.0, "T": 0.1}, math.log(0.1))],
)
def test_a_side_that_is_not_listed_is_bounded_by_the_least_likely_token(shares, expected):
    assert yes_over_no(reply("x", ("x", shares))) == pytest.approx(expected)


@pytest.mark.parametrize("places", [[], [("yes", {})], [("a", {"a": 1.0}), ("yes", {"yes": 1.0})]])
def test_a_first_token_that_is_neither_yes_nor_no_is_malformed(places):
    with pytest.raises(NotInForm):
        yes_over_no(reply("yes", *places))


def test_yes_over_no_of_probabilities_that_round_to_nothing():
    place = WrittenToken("no", [("yes", -9999.0), ("Yes", -9999.0), ("no", 0.0)])
    assert yes_over_no(Reply("no", [place])) == pytest.approx(-9999 + math.log(2))


def test_a_grade_is_the_mean_under_the_probabilities_of_the_digits():
    shares = {"2": 0.4, "3": 0.2, " 3": 0.1, "0": 0.1, "4": 0.1, "two": 0.1}
    expected = (2 * 0.4 + 3 * 0.3) / 0.8
    assert grade(reply("\n2", ("\n", {"\n": 0.9, "0": 0.1}), ("2", shares))) == pytest.approx(
        expected
    )
    tiny = WrittenToken("1", [("1", -9999.0), ("2", -9999.0)])
    assert grade(Reply("1", [tiny])) == pytest.approx(1.5)


@pytest.mark.parametrize("places", [[], [("id:17", {"0": 1.0})], [("3", {"x": 1.0})]])
def test_without_probabilities_of_the_digit_a_grade_is_the_digit(places):
    assert grade(reply(" 3\n", *places)) == 3.0


@pytest.mark.parametrize(
    "text",
    ["", "4", "9", "-1", "2.5", "22", "2 3", "2.", "[2]", "two", "²", "٢", "Grade: 2", "2/3"],
)
def test_a_grade_in_any_other_form_is_malformed(text):
    with pytest.raises(NotInForm):
        grade(reply(text, ("2", {"2": 1.0})))


@given(st.text(alphabet="0123456789 .\n-[]>٣x", max_size=5))
def test_no_text_but_a_digit_from_0_to_3_is_a_grade(text):
    if text.strip() in {"0", "1", "2", "3"}:
        assert grade(Reply(text, [])) == float(text)
    else:
        with pytest.raises(NotInForm):
            grade(Reply(text, []))


@given(st.permutations(range(6)), st.sampled_from([" > ", ">", "  >\n"]))
def test_a_permutation_is_read(numbers, sign):
    text = sign.join(f"[{number + 1}]" for number in numbers)
    assert order(Reply(f" {text}\n", []), 6) == numbers


@given(
    st.lists(
        st.sampled_from(["[1]", "[2]", "[3]", "[4]", "[0]", "[02]", "2", " > ", ">", ",", "a"])
    )
)
def test_every_text_that_is_not_a_permutation_is_refused(parts):
    text = "".join(parts)
    bare = re.sub(r"\s*>\s*", ">", text).strip().split(">")
    if sorted(bare) == ["[1]", "[2]", "[3]"]:
        assert [f"[{number + 1}]" for number in order(Reply(text, []), 3)] == bare
    else:
        with pytest.raises(NotInForm):
            order(Reply(text, []), 3)


@pytest.mark.parametrize(
    "text",
    [
        "[1] > [2] > [1]",
        "[1] > [02]",
        "[1] > [2] >",
        "[1] [2]",
        "[1], [2]",
        "1 > 2",
        "[1] > [2]\n[1] > [2]",
        "[[1] > [2]]",
        "[1] >> [2]",
        "[١] > [٢]",
        "[1] > [2] > [3]",
        "[0] > [1]",
        "[2]",
        "",
    ],
)
def test_what_looks_like_an_order_of_two_and_is_none_is_refused(text):
    with pytest.raises(NotInForm):
        order(Reply(text, []), 2)


@given(st.text())
def test_arbitrary_text_is_refused(text):
    with pytest.raises(NotInForm):
        order(Reply(text, []), 2)


@given(st.permutations(range(1, 5)), st.data())
def test_one_wrong_number_spoils_a_permutation(numbers, data):
    place = data.draw(st.integers(0, 3))
    wrong = data.draw(st.integers(0, 10**5).filter(lambda number: number != numbers[place]))
    numbers[place] = wrong
    with pytest.raises(NotInForm):
        order(Reply(" > ".join(f"[{number}]" for number in numbers), []), 4)


GOOD = {
    "message": {"content": "2"},
    "logprobs": {"content": [{"token": "2", "top_logprobs": [{"token": "2", "logprob": -0.5}]}]},
}


def test_a_choice_is_read_with_and_without_logprobs():
    assert read_reply(GOOD) == Reply("2", [WrittenToken("2", [("2", -0.5)])])
    for none in ({}, {"logprobs": None}, {"logprobs": {"content": None}}):
        assert read_reply({"message": {"content": "2"}, **none}) == Reply("2", [])


@pytest.mark.parametrize("count", [-1, None, "12", True, math.inf, [1]])
def test_a_bill_that_makes_no_sense_is_the_one_expected(count):
    expected = Usage(tokens=9, output_tokens=4)
    response = {"choices": [], "usage": {"prompt_tokens": count, "completion_tokens": 1}}
    assert read_completion(response, expected) == (None, expected)
    response["usage"] = {"prompt_tokens": 1, "completion_tokens": count}
    assert read_completion(response, expected) == (None, expected)
    assert read_completion({"choices": [GOOD]}, expected) == (GOOD, expected)
    response["usage"] = {"prompt_tokens": 0, "completion_tokens": 1}
    assert read_completion(response, expected) == (None, Usage(output_tokens=1))


@pytest.mark.parametrize("logprob", [math.nan, math.inf, -math.inf, 10**400, None, "x", [], {}])
def test_a_log_probability_that_is_no_number_is_malformed(logprob):
    place = {"token": "2", "top_logprobs": [{"token": "2", "logprob": logprob}]}
    with pytest.raises(NotInForm):
        read_reply(GOOD | {"logprobs": {"content": [place]}})


@pytest.mark.parametrize(
    "choice",
    [
        None,
        [],
        "yes",
        {},
        {"message": None},
        {"message": {"content": None, "refusal": "no"}},
        {"message": {"content": ["2"]}},
        GOOD | {"logprobs": "x"},
        GOOD | {"logprobs": {"content": "x"}},
        GOOD | {"logprobs": {"content": [{"token": "2"}]}},
        GOOD | {"logprobs": {"content": [None]}},
        GOOD | {"logprobs": {"content": 3}},
    ],
)
def test_a_choice_of_another_shape_is_malformed(choice):
    with pytest.raises(NotInForm):
        read_reply(choice)
