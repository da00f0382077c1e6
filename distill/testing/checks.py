"""What a conformance suite is: named checks, run one by one, or all under an `assert`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from distill.errors import DistillError, UsageError, one_line


class Remark(Exception):
    """Something an author should know that breaks no contract."""


@dataclass(frozen=True, slots=True)
class Check:
    """One promise of a contract.

    Attributes:
        name: the promise, as a sentence.
        run: returns where it is kept; raises AssertionError where it is broken, Remark where it is worth a word.
    """

    name: str
    run: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a check: `reason` says what, in which conversation, and what to do; empty where it passed."""

    check: str
    status: Literal["passed", "failed", "noted"]
    reason: str = ""


def run_checks(checks: Iterable[Check]) -> Iterator[Outcome]:
    """Run checks, each whatever became of those before it.

    Raises:
        UsageError: the plugin refuses the options it was built with.
    """
    for check in checks:
        try:
            check.run()
        except Remark as remark:
            yield Outcome(check.name, "noted", str(remark))
        except AssertionError as error:
            yield Outcome(check.name, "failed", str(error))
        except UsageError:  # whoever named the plugin gave it the wrong options
            raise
        except DistillError as error:
            yield Outcome(check.name, "failed", f"{error.message}; {error.hint}" if error.hint else error.message)
        except (Exception, SystemExit) as error:
            yield Outcome(check.name, "failed", f"the plugin raised {one_line(error)}")
        else:
            yield Outcome(check.name, "passed")


def assert_all(checks: Iterable[Check]) -> None:
    """Run checks, and raise one AssertionError that names all that failed."""
    failed = [outcome for outcome in run_checks(checks) if outcome.status == "failed"]
    if failed:
        raise AssertionError("\n".join(f"✗ {outcome.check}\n    {outcome.reason}" for outcome in failed))


def broken(reason: str, remark: bool = False) -> None:
    """End a check: its promise is broken, or only worth a remark."""
    raise Remark(reason) if remark else AssertionError(reason)
