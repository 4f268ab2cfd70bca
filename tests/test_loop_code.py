"""Compiled loops: what is rewritten, and what is left alone."""

from __future__ import annotations

import pytest

from sweepvi.engine.lanes.compiled.loop_code import UnknownLoopError, without_allocations

GIVEN = """\
        AtenTensorHandle body_{inner}_handle;
        AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_assign_tensors_out({outer}, &body_{inner}_handle));
        RAIIAtenTensorHandle body_{inner}(body_{inner}_handle);
"""
MADE = """\
        AtenTensorHandle {name}_handle;
        AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(1, sizes, {strides}, type, device, 0, &{name}_handle));
        RAIIAtenTensorHandle {name}({name}_handle);
"""
CARRIED = """\
        {outer}.reset();
        {outer} = std::move({name});
"""


def loop(*lines):
    return "".join(["before();\n", "    while (1) {\n", *lines, "    }\n", "after();\n"])


def test_what_the_body_is_given_is_read_where_it_lies():
    text = without_allocations(loop(GIVEN.format(inner="x", outer="buf1"), "        body_x.reset();\n"))
    assert "auto& body_x = buf1;" in text
    assert "assign_tensors_out" not in text
    assert "body_x.reset()" not in text, "the tensor outside would be freed"


def test_memory_is_allocated_once_and_changes_places_after_the_first_iteration():
    text = without_allocations(
        loop(MADE.format(name="made", strides="strides"), CARRIED.format(outer="buf1", name="made"))
    )
    assert text.index("RAIIAtenTensorHandle made_kept;") < text.index("while (1)")
    assert "if (!made_kept.get()) {" in text
    assert "if (first_iteration) buf1 = std::move(made); else std::swap(buf1, made);" in text
    assert text.index("std::swap") < text.index("first_iteration = false;")


def test_memory_whose_size_is_known_only_in_the_loop_is_made_there():
    text = without_allocations(loop(MADE.format(name="made", strides="u0")))
    assert "made_kept" not in text
    assert "aoti_torch_empty_strided" in text


def test_reused_memory_and_views_follow_what_they_are_of():
    view = (
        "        auto seen = wrap_with_raii_handle_if_needed(reinterpret_tensor_wrapper({}, 1, sizes, strides, 4L));\n"
    )
    reused = "        auto again = std::move(made);  // reuse\n"
    made = MADE.format(name="made", strides="strides")
    text = without_allocations(loop(made, reused, view.format("again"), "        seen.reset();\n"))
    assert "auto& again = made;" in text
    assert "if (!seen_kept.get()) seen_kept = " in text
    assert "seen.reset()" not in text
    carried = without_allocations(loop(made, view.format("made"), CARRIED.format(outer="buf1", name="made")))
    assert "seen_kept" not in carried, "a view of memory that changes places would go on showing the old one"


def test_memory_whose_last_use_is_a_view_is_kept():
    view = "        auto {} = wrap_with_raii_handle_if_needed(reinterpret_tensor_wrapper(made, 1, sizes, at, 0L));{}\n"
    made = MADE.format(name="made", strides="strides")
    text = without_allocations(loop(made, view.format("seen", ""), view.format("again", " made.reset();  // reuse")))
    assert "if (!again_kept.get()) again_kept = " in text
    assert "made.reset()" not in text, "made anew in the next iteration, seen would show the old memory"


def test_memory_that_is_handed_on_as_a_view_is_not_kept():
    view = "        auto seen = wrap_with_raii_handle_if_needed(reinterpret_tensor_wrapper(made, 1, sizes, at, 0L));"
    lines = [MADE.format(name="made", strides="strides"), f"{view} made.reset();  // reuse\n"]
    text = without_allocations(loop(*lines, CARRIED.format(outer="buf1", name="seen")))
    assert "_kept" not in text, "what changes places would no longer be the memory that is viewed"
    assert "made.reset();  // reuse" in text
    assert "buf1 = std::move(seen);" in text


def test_memory_of_a_view_is_reused():
    view = "        auto seen = wrap_with_raii_handle_if_needed(reinterpret_tensor_wrapper(made, 1, sizes, at, 0L));"
    lines = [MADE.format(name="made", strides="strides"), f"{view} made.reset();  // reuse\n"]
    text = without_allocations(loop(*lines, "        auto again = std::move(seen);  // reuse\n"))
    assert "auto& again = seen;" in text
    assert "std::move(seen)" not in text


def test_a_tensor_that_passes_through_stays():
    text = without_allocations(loop(GIVEN.format(inner="x", outer="buf1"), CARRIED.format(outer="buf1", name="body_x")))
    assert "buf1.reset()" not in text


@pytest.mark.parametrize(
    "body",
    [
        GIVEN.format(inner="x", outer="buf1") + CARRIED.format(outer="buf2", name="body_x"),
        MADE.format(name="made", strides="strides") + "        keep(std::move(made));\n",
        "        while (true) {\n        }\n",
        "        other = made.release();\n",
        MADE.format(name="made", strides="strides") + "        use(made); made.reset();\n",
        GIVEN.format(inner="x", outer="buf1") + "        use(body_x); body_x.reset();\n",
    ],
    ids=["another's place", "moved away", "a loop in it", "released", "made is freed", "given is freed"],
)
def test_what_is_not_known_is_refused(body):
    with pytest.raises(UnknownLoopError):
        without_allocations(loop(body))


def test_a_program_without_a_loop_is_refused():
    with pytest.raises(UnknownLoopError, match="no loop"):
        without_allocations("int main() {}\n")
