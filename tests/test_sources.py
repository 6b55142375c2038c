from __future__ import annotations

import pytest

from harness.errors import ConfigError, StudyError
from harness.matrix import expand, parse_matrix
from harness.sources import FILE, Need, Repository, Sources, needs, read_sources, write_sources
from harness.spec import RunSpec
from harness.store import Store
from tests.conftest import MATRIX


def specs(text: str) -> list[RunSpec]:
    return expand(parse_matrix(text, "m"))


def test_what_ships_with_the_harness_or_is_a_folder_needs_nothing(tmp_path):
    assert needs(specs(MATRIX)) == []
    for source in ("smollm2", "toy:meta-llama/Llama-3.1-8B", str(tmp_path)):
        assert needs(specs(MATRIX.replace("embedded:micro-llama", source))) == []


def test_fixture_rows_of_a_pages_dataset_need_nothing():
    text = MATRIX.replace("{name: micro-steps,", "{name: openai/gsm8k, rows_from: fixture,")
    assert needs(specs(text)) == []


def test_a_repository_is_needed_once_at_its_revision():
    text = MATRIX.replace('{source: "embedded:micro-llama"}', "{source: a/b, revision: v1}")
    text = text.replace("{name: micro-steps,", "{name: openai/gsm8k,")
    assert needs(specs(text)) == [
        Need("a/b", "model", "v1"),
        Need("openai/gsm8k", "dataset", "main"),
    ]


def test_one_repository_at_two_revisions_is_refused():
    text = MATRIX.replace('{source: "embedded:micro-llama"}', "{source: a/b, revision: v1}", 1)
    text = text.replace('{source: "embedded:micro-llama"}', "{source: a/b}")
    with pytest.raises(ConfigError, match=r"asked for at 2 revisions \(main, v1\)"):
        needs(specs(text))


def test_an_entry_that_is_there_stays_as_it_is(tmp_path):
    store = Store(tmp_path)
    assert read_sources(store) is None
    first = Repository(repository="a/b", kind="model", revision="main", commit="1" * 40)
    later = first.model_copy(update={"commit": "2" * 40})
    more = Repository(repository="c/d", kind="dataset", revision="main", commit="3" * 40)
    write_sources(store, Sources(endpoint="https://one", repositories=(first,)))
    joined = read_sources(store).joined((later, more), "https://two")
    assert joined == Sources(endpoint="https://one", repositories=(first, more))
    (tmp_path / FILE).write_text('{"format": 1')
    with pytest.raises(StudyError, match=r"sources\.json"):
        read_sources(store)
