"""Runs the tests, then looks whether every public method of the SDKs was called, and was seen to fail, in both kinds."""

import faulthandler
import logging
import sys
import time
import unittest

from .sdk import called, failed
from .surface import NEVER_FAIL, public_methods

SECONDS_MAX = 13 * 60
"""After this long the run ends, and says where it stood."""

SLOWEST_SHOWN = 10


class TimedResult(unittest.TextTestResult):
    """Notes how long each test takes."""

    def __init__(self, *arguments, **options) -> None:
        super().__init__(*arguments, **options)
        self.durations: list[tuple[float, str]] = []

    def startTest(self, test: unittest.TestCase) -> None:
        self._begin = time.monotonic()
        super().startTest(test)

    def stopTest(self, test: unittest.TestCase) -> None:
        self.durations.append((time.monotonic() - self._begin, test.id()))
        super().stopTest(test)


def main(names: list[str]) -> int:
    # What the SDKs have to say of lost connections is no news here.
    logging.basicConfig(handlers=[logging.NullHandler()])
    faulthandler.dump_traceback_later(SECONDS_MAX, exit=True)
    loader = unittest.TestLoader()
    suite = loader.loadTestsFromNames(names) if names else loader.discover("tests", top_level_dir=".")
    result = unittest.TextTestRunner(verbosity=2, resultclass=TimedResult).run(suite)
    for seconds, test in sorted(result.durations, reverse=True)[:SLOWEST_SHOWN]:
        print(f"{seconds:6.1f} s  {test}", file=sys.stderr)
    if not result.wasSuccessful() or result.testsRun == 0:
        return 1
    if names:
        return 0
    missing = sorted(public_methods() - called)
    always_well = sorted(method for method in public_methods() - failed if method[2] not in NEVER_FAIL)
    for method in missing:
        print("never called: {} {}.{}".format(*method), file=sys.stderr)
    for method in always_well:
        print("never seen to fail: {} {}.{}".format(*method), file=sys.stderr)
    return 1 if missing or always_well else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
