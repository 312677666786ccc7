"""The rehearsal follows a Dockerfile to the letter, or refuses it."""

from __future__ import annotations

import pytest

from prichexy_testing.rehearsal.dockerfile import DockerfileError, parse, substitute
from prichexy_testing.rehearsal.recipe import (
    Copy,
    HealthCheck,
    MakeFolder,
    Recipe,
    Run,
    read_recipe,
    seconds,
)

BASE = "FROM debian:trixie-slim\n"


def recipe(lines: str, **build_arguments: str) -> Recipe:
    return read_recipe(BASE + lines, build_arguments)


def test_a_continued_line_is_one_instruction_and_comments_in_it_are_none() -> None:
    (_, run) = parse("FROM a\nRUN one \\\n# why\n\n  && two\n")
    assert run.text.split() == ["one", "&&", "two"]
    assert run.line == 2


@pytest.mark.parametrize(
    "line",
    [
        "ADD a b",
        "VOLUME /data",
        "SHELL ['sh']",
        "ONBUILD RUN true",
        "STOPSIGNAL SIGINT",
        "COPY --from=other a b",
        "COPY --chown=1:1 a b",
        "COPY *.py /b/",
        "COPY a b /not-a-folder",
        "COPY only",
        "RUN --mount=type=cache,target=/x true",
        "RUN cat <<END",
        "RUN",
        "USER prichexy",
        "ENV name value",
        "ENTRYPOINT sh -c true",
        "CMD true",
        "CMD [1]",
        "CMD []",
        "HEALTHCHECK NONE",
        'HEALTHCHECK --start-interval=1s CMD ["true"]',
        "FROM second:stage",
        "ENV a='b",
        "RUN one \\",
    ],
)
def test_what_is_not_rehearsed_is_refused(line: str) -> None:
    with pytest.raises(DockerfileError):
        recipe(line)


def test_the_refusal_names_the_line() -> None:
    with pytest.raises(DockerfileError, match=r"line 3: ADD"):
        recipe("\nADD a b\n")


def test_a_parser_directive_is_refused() -> None:
    with pytest.raises(DockerfileError, match="directive"):
        read_recipe("# syntax=docker/dockerfile:1\n" + BASE, {})


@pytest.mark.parametrize("text", ["", "# nothing\n", "RUN true\nFROM a\n", "ARG A=1\n"])
def test_nothing_but_arguments_stands_before_the_base(text: str) -> None:
    with pytest.raises(DockerfileError):
        read_recipe(text, {})


def test_variables_come_from_env_before_arg_and_have_defaults() -> None:
    image = recipe("ARG A=argument\nENV A=environment\nENV B=${A}-$A-${NONE:-d}-$NONE.").image
    assert image.environment["B"] == "environment-environment-d-."


def test_an_escaped_dollar_stays() -> None:
    assert substitute(r"\$A $A", {"A": "value"}) == "$A value"


def test_a_build_argument_replaces_the_default_and_reaches_run_but_not_the_image() -> None:
    made = recipe("ARG DEVICE=cpu\nRUN make $DEVICE", DEVICE="cuda")
    (run,) = made.steps
    assert isinstance(run, Run)
    assert run.environment["DEVICE"] == "cuda"
    assert run.argv == ("/bin/sh", "-c", "make $DEVICE")
    assert "DEVICE" not in made.image.environment


def test_a_build_argument_that_is_not_declared_is_refused() -> None:
    with pytest.raises(DockerfileError, match="TYPO"):
        recipe("ARG DEVICE=cpu", TYPO="x")


def test_an_argument_before_the_base_is_for_the_base_only() -> None:
    made = read_recipe("ARG S=trixie\nFROM debian:$S-slim\nENV SEEN=[$S]", {})
    assert made.base == "debian:trixie-slim"
    assert made.image.environment["SEEN"] == "[]"


def test_steps_keep_their_order_folder_and_user() -> None:
    made = recipe('WORKDIR /a\nWORKDIR b\nCOPY x y\nUSER 7:8\nRUN ["id", "-u"]\n')
    assert made.steps[:3] == (MakeFolder("/a"), MakeFolder("/a/b"), Copy(("x",), "/a/b/y", None))
    run = made.steps[3]
    assert isinstance(run, Run)
    assert (run.argv, run.folder, run.user) == (("id", "-u"), "/a/b", "7:8")


def test_a_copy_into_a_folder_stays_one() -> None:
    made = recipe("WORKDIR /a\nCOPY x y ./\nCOPY --chmod=755 z /bin/\n")
    assert made.steps[1:] == (Copy(("x", "y"), "/a/", None), Copy(("z",), "/bin/", 0o755))


def test_an_entrypoint_drops_the_command_that_stood_before_it() -> None:
    assert recipe('CMD ["old"]\nENTRYPOINT ["start"]').image.command == ()


def test_a_health_check_keeps_its_timing() -> None:
    made = recipe(
        "HEALTHCHECK --interval=5s --timeout=500ms --start-period=1m30s --retries=2 "
        'CMD ["ask", "it"]'
    )
    assert made.image.health == HealthCheck(("ask", "it"), 5.0, 0.5, 90.0, 2)


@pytest.mark.parametrize("text", ["5", "s", "5 s", "1h", ""])
def test_a_duration_without_a_known_unit_is_refused(text: str) -> None:
    with pytest.raises(DockerfileError):
        seconds(text)
