"""API keys: what they look like, what they allow, and the secret behind what is stored of them."""

import re
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.client.transport import authorization
from luthier.errors import UserError
from luthier.keys import ALPHABET, Scope, Secret, hint, mint, secret_of, well_formed
from luthier.settings import Settings, is_loopback


def test_a_key_is_a_prefix_then_randomness_then_a_checksum() -> None:
    made = {mint() for _ in range(50)}
    assert len(made) == 50
    assert all(re.fullmatch(r"luthier_[0-9A-Za-z]{38}", key) and well_formed(key) for key in made)


@given(st.integers(0, 45), st.sampled_from(ALPHABET))
def test_a_key_with_one_character_mistyped_is_no_key(place: int, other: str) -> None:
    key = mint()
    mistyped = key[:place] + other + key[place + 1 :]
    assert well_formed(mistyped) is (mistyped == key)


@pytest.mark.parametrize("text", ["", "luthier_", "sk-1234", "luthier_" + "é" * 38])
def test_other_texts_are_no_keys(text: str) -> None:
    assert not well_formed(text)


def test_half_a_key_is_no_key() -> None:
    key = mint()
    assert not well_formed(key[:-1])
    assert not well_formed(key + "0")


def test_a_hint_shows_four_characters_of_the_randomness() -> None:
    key = mint()
    assert hint(key) == key[:12] + "…"


def test_scopes_include_those_before_and_the_workers_stands_apart() -> None:
    allowed = {scope: {needed for needed in Scope if scope.allows(needed)} for scope in Scope}
    assert allowed == {
        Scope.READ: {Scope.READ},
        Scope.SUBMIT: {Scope.READ, Scope.SUBMIT},
        Scope.ADMIN: {Scope.READ, Scope.SUBMIT, Scope.ADMIN},
        Scope.WORKER: {Scope.WORKER},
    }


def test_what_is_stored_depends_on_the_secret_and_does_not_hold_the_key() -> None:
    key, one, other = mint(), Secret(b"one" * 20), Secret(b"other" * 20)
    assert one.digest(key) == Secret(b"one" * 20).digest(key) != other.digest(key)
    assert one.session != other.session
    assert key not in one.digest(key)


def test_the_secret_of_a_home_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    settings, key = Settings(home=tmp_path / "home"), mint()
    digest = secret_of(settings).digest(key)
    assert (tmp_path / "home" / "secret").stat().st_mode & 0o777 == 0o600
    assert secret_of(settings).digest(key) == digest
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["secret"]


def test_processes_that_start_at_once_agree_on_the_secret(tmp_path: Path) -> None:
    found: set[bytes] = set()
    threads = [threading.Thread(target=lambda: found.add(secret_of(Settings(home=tmp_path)).session)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    secret_of(Settings(home=tmp_path))
    (tmp_path / "secret").chmod(0o640)
    with pytest.raises(UserError, match=r"secret.*chmod 600"):
        secret_of(Settings(home=tmp_path))


def test_replicas_share_the_secret_of_their_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_SECRET", "not to be guessed by anybody at all")
    one, other = (secret_of(Settings(home=tmp_path / name)) for name in ("a", "b"))
    assert one.session == other.session
    assert list(tmp_path.iterdir()) == []
    assert "guessed" not in repr(Settings())


def test_a_short_secret_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_SECRET", "short")
    with pytest.raises(ValueError, match="at least 32"):
        Settings()


def test_the_client_takes_its_key_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LUTHIER_API_KEY", raising=False)
    assert authorization() == {}
    key, other = mint(), mint()
    monkeypatch.setenv("LUTHIER_API_KEY", f" {key}\n")
    assert authorization() == {"Authorization": f"Bearer {key}"}
    assert authorization(other) == {"Authorization": f"Bearer {other}"}
    monkeypatch.setenv("LUTHIER_API_KEY", key[:-3])
    with pytest.raises(UserError, match="LUTHIER_API_KEY") as refused:
        authorization()
    assert refused.value.param == "api_key"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_these_hosts_are_this_machine_alone(host: str) -> None:
    assert is_loopback(host)
    assert Settings(host=host).local_only


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "localhost.evil.example", "127.0.0.1.evil.example", ""])
def test_these_hosts_are_not(host: str) -> None:
    assert not is_loopback(host)
