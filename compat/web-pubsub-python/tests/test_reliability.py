"""Reliable clients that are cut off again and again get every message, once, in its order."""

import os
import random
import time

from lib import stage
from lib.proxy import Proxy
from lib.sdk import Aio, Sync
from lib.stage import EVERY_ROLE, JSON, Client

MESSAGES = 1_300
"""Sent to every client, half of them by the service's client, half by another client."""

CLIENTS = 4
"""Of each kind, each behind a proxy of its own."""

MESSAGES_A_SECOND_MAX = 300
"""A client may leave 1,000 unacknowledged. It acknowledges each second, and is away for a second or two when it is cut off."""

CUT_EVERY = (40, 250)
"""Between two cuts of one client lie so many messages."""


class Pace:
    """Lets no more happen than so many a second."""

    def __init__(self, a_second: float) -> None:
        self._interval = 1 / a_second
        self._next = time.monotonic()

    def step(self) -> None:
        now = time.monotonic()
        if now < self._next:
            time.sleep(self._next - now)
        self._next = max(now, self._next) + self._interval


class Reliability(stage.Case):
    kind_class = Aio

    def test_ten_thousand_deliveries(self):
        seed = int(os.environ.get("HOOKWIRE_SEED", random.SystemRandom().randrange(1 << 32)))
        dice = random.Random(seed)
        kinds = [Sync() for _ in range(CLIENTS)] + [Aio() for _ in range(CLIENTS)]
        for kind in kinds:
            self.addCleanup(kind.end)
        with self.subTest(seed=seed):
            self.deliver(dice, kinds)

    def deliver(self, dice, kinds):
        sender = self.join("sender")
        roads: list[Proxy] = [self.proxy() for _ in kinds]
        clients = []
        for number, (kind, road) in enumerate(zip(kinds, roads, strict=True)):
            client = Client(kind, road.way_to(self.url(f"user {number}", roles=EVERY_ROLE, groups=["g"])))
            self.addCleanup(client.sdk.close)
            clients.append(client.open())
        cuts = 0
        due = [dice.randint(*CUT_EVERY) for _ in roads]
        pace = Pace(MESSAGES_A_SECOND_MAX)
        for number in range(MESSAGES):
            pace.step()
            data = {"number": number, "filling": "x" * dice.randrange(300)}
            if number % 2:
                sender.sdk.send_to_group("g", data, JSON, no_echo=True)
            else:
                self.service.send_to_group("g", data)
            for at, road in enumerate(roads):
                if due[at] <= number:
                    due[at] = number + dice.randint(*CUT_EVERY)
                    cuts += 1
                    if dice.random() < 0.5:
                        road.cut(reset=dice.random() < 0.5)
                    else:
                        road.cut_after(dice.randrange(1500), reset=dice.random() < 0.5)
        for client in clients:
            client.messages.wait_for(MESSAGES)
        # What would come twice stands before this.
        mark = "the end"
        self.service.send_to_group("g", mark, content_type="text/plain")
        for client in clients:
            taken = client.wait_for_mark(mark)
            self.assertEqual([message.data["number"] for message in taken], list(range(MESSAGES)))
            self.assertEqual([message.sequence_id for message in taken], list(range(1, MESSAGES + 1)))
            self.assertEqual(len(client.disconnections), 0)
            self.assertTrue(self.service.connection_exists(client.id))
        self.assertLess(len(roads), cuts, "hardly anybody was cut off")
