"""Lost transports: what a client gets back, what it is told, and what happens when it comes too late."""

import json
import threading

from azure.messaging.webpubsubclient.models import WebPubSubProtocolType

from lib.proxy import Proxy
from lib.service import PRIMARY_KEY, Service
from lib.stage import EVERY_ROLE, TEXT, Message, as_message, both
from lib.upstream import Answer, text
from lib.waiting import DEADLINE_SECONDS

TEXT_TYPE = "text/plain"


class Traveller:
    """A test with clients behind a proxy."""

    def setUp(self):
        super().setUp()
        self.road: Proxy = self.proxy()

    def travel(self, user=None, *, roles=EVERY_ROLE, groups=(), **options):
        """Returns an open client that reaches the service through the proxy."""
        url = self.url(user, roles=roles, groups=list(groups))
        return self.client(self.road.way_to(url), **options).open()

    def is_lost(self):
        """Waits until a client that was cut off has been turned away."""
        self.assertTrue(self.road.turned_away.acquire(timeout=DEADLINE_SECONDS), "nobody has tried to come back")

    def told_nothing(self, client):
        """Makes sure that the client noticed no end: no callback, the same connection, and no event at the upstream."""
        self.kind.settle()
        for callbacks in (client.connections, client.disconnections, client.stops):
            self.assertEqual(len(callbacks), 0)
        self.assertTrue(self.service.connection_exists(client.id))
        self.assertEqual(self.upstream.record[client.id], ["connect", "connected"])


@both
class Recovery(Traveller):
    def cut_in_every_way(self):
        """Yields once for each way in which a transport can end."""
        yield "orderly", lambda: self.road.cut()
        yield "by a reset", lambda: self.road.cut(reset=True)

    def test_what_was_sent_meanwhile_arrives_in_order_and_once(self):
        client, sender, witness = self.travel("ann", groups=["g"]), self.join("bob", groups=["g"]), self.join("eve", groups=["g"])
        for way, cut in self.cut_in_every_way():
            with self.subTest(way=way):
                self.road.close_door()
                self.service.send_to_user("ann", f"before, {way}", content_type=TEXT_TYPE)
                cut()
                self.is_lost()
                expected = [Message(f"before, {way}")]
                for number in range(20):
                    self.service.send_to_user("ann", f"{number}", content_type=TEXT_TYPE)
                    # The sync library sleeps through an ack that comes before it begins to wait: the witness tells instead.
                    sender.sdk.send_to_group("g", f"{number} too", TEXT, no_echo=True, ack=False)
                    from_bob = Message(f"{number} too", group="g", user="bob")
                    self.assertEqual(as_message(witness.messages.next()), from_bob)
                    expected += [Message(f"{number}"), from_bob]
                self.road.open_door()
                self.got((client, *expected), (sender,), (witness,))
                self.told_nothing(client)

    def test_a_cut_within_a_frame(self):
        client = self.travel("ann")
        for count in (0, 1, 2, 7, 200, 20_000):
            self.road.cut_after(count)
            expected = []
            for number in range(30):
                self.service.send_to_user("ann", f"{number}" * 700, content_type=TEXT_TYPE)
                expected.append(Message(f"{number}" * 700))
            self.got((client, *expected))
        self.told_nothing(client)

    def test_the_service_keeps_the_connection_meanwhile(self):
        client = self.travel("ann", groups=["g"])
        self.road.close_door()
        self.road.cut()
        self.is_lost()
        self.assertTrue(self.service.connection_exists(client.id))
        self.assertTrue(self.service.user_exists("ann"))
        members = self.service.items("list_connections", group="g")
        self.assertEqual([(member.connection_id, member.user_id) for member in members], [(client.id, "ann")])
        self.service.add_connection_to_group("h", client.id)
        self.service.remove_connection_from_group("g", client.id)
        self.service.revoke_permission("sendToGroup", client.id, target_name="h")
        for group in ("g", "h"):
            self.service.send_to_group(group, group, content_type=TEXT_TYPE)
        self.road.open_door()
        self.got((client, Message("h", group="h")))
        self.send_fails("Forbidden", client.sdk.send_to_group, "h", "x", TEXT)
        self.told_nothing(client)

    def test_several_cuts_in_a_row(self):
        client = self.travel("ann")
        for number in range(5):
            self.road.cut(reset=number % 2 == 1)
            self.service.send_to_user("ann", f"{number}", content_type=TEXT_TYPE)
        self.got((client, *[Message(f"{number}") for number in range(5)]))
        self.told_nothing(client)

    def test_requests_after_a_recovery(self):
        self.answer(order=lambda event: text(f"re: {event.text}"))
        client = self.travel("ann")
        self.road.cut()
        self.got((client,))
        client.sdk.join_group("g")
        client.sdk.send_to_group("g", "x", TEXT)
        client.sdk.send_event("order", "y", TEXT)
        self.got((client, Message("x", group="g", user="ann"), Message("re: y")))

    def test_requests_that_wait_for_their_acks(self):
        begun, go_on = threading.Event(), threading.Event()
        self.addCleanup(go_on.set)

        def slow(event):
            begun.set()
            go_on.wait(DEADLINE_SECONDS)
            return text("done")

        self.answer(order=slow)
        client = self.travel("ann", ack_timeout=DEADLINE_SECONDS)
        failures = []

        def order():
            failures.append(
                self.send_fails("NoAckMessageReceivedFromServer", client.sdk.send_event, "order", "x", TEXT, ack_id=1 << 33)
            )

        ordering = threading.Thread(target=order)
        ordering.start()
        self.assertTrue(begun.wait(DEADLINE_SECONDS))
        self.road.cut()
        ordering.join(DEADLINE_SECONDS)
        self.assertEqual(len(failures), 1)
        go_on.set()
        # The answer comes over the new transport, once; the event is not told again for its id.
        self.assertEqual(client.next(), Message("done"))
        client.sdk.send_event("order", "x", TEXT, ack_id=1 << 33)
        self.assertEqual(len(self.upstream["order"].take_all()), 1)
        self.got((client,))

    def test_a_group_member_that_comes_back_need_not_join_again(self):
        client = self.travel(auto_rejoin_groups=False)
        client.sdk.join_group("g")
        self.road.cut()
        self.service.send_to_group("g", "x", content_type=TEXT_TYPE)
        self.got((client, Message("x", group="g")))

    def test_closing_while_cut_off(self):
        client = self.travel("ann")
        self.road.close_door()
        self.road.cut()
        self.is_lost()
        client.sdk.close()
        self.road.open_door()
        # Nobody says goodbye: the service waits for it and gives up in the end; see tests of a short retention.
        self.service.close_connection(client.id)
        self.is_gone(client.id)


@both
class RefusedRecovery(Traveller):
    """A client that comes too late is a new connection, in the groups that it had joined."""

    configuration = "[limits]\nrecovery_seconds = 0.5\n"

    def comes_too_late(self, client):
        """Keeps the client away for longer than the service waits; returns the id of the new connection."""
        old = client.id
        self.road.close_door()
        self.road.cut()
        gone = self.upstream["disconnected"].next(lambda event: event.connection_id == old)
        self.assertIn("reason", gone.json)
        self.assertFalse(self.service.connection_exists(old))
        self.road.open_door()
        return self.is_new(client)

    def is_new(self, client):
        old = client.id
        self.assertEqual(client.disconnections.next().connection_id, old)
        client.id = client.connections.next().connection_id
        self.assertNotEqual(client.id, old)
        return client.id

    def test_after_the_retention(self):
        client, witness = self.travel("ann", groups=["by token"]), self.join(groups=["joined"])
        client.sdk.join_group("joined")
        client.sdk.join_group("left")
        client.sdk.leave_group("left")
        self.service.send_to_group("joined", "before", content_type=TEXT_TYPE)
        self.assertEqual(client.next(), Message("before", group="joined"))
        new = self.comes_too_late(client)
        self.has_joined("joined", new)
        for group in ("joined", "by token", "left"):
            self.service.send_to_group(group, group, content_type=TEXT_TYPE)
        self.got(
            (client, Message("joined", group="joined"), Message("by token", group="by token")),
            (witness, Message("before", group="joined"), Message("joined", group="joined")),
        )
        self.assertEqual(self.upstream["connected"].next().user_id, "ann")

    def test_without_joining_again(self):
        client = self.travel(auto_rejoin_groups=False)
        client.sdk.join_group("g")
        self.comes_too_late(client)
        client.sdk.join_group("h")
        for group in ("g", "h"):
            self.service.send_to_group(group, group, content_type=TEXT_TYPE)
        self.got((client, Message("h", group="h")))

    def test_without_reconnecting(self):
        client = self.travel("ann", reconnect_retry_total=0)
        self.road.close_door()
        self.road.cut()
        self.upstream["disconnected"].next()
        self.road.open_door()
        self.assertEqual(client.disconnections.next().connection_id, client.id)
        client.stops.next()
        self.assertFalse(self.service.user_exists("ann"))

    def test_a_join_that_fails_the_second_time(self):
        roles = [EVERY_ROLE, []]
        client = self.client(lambda: self.road.way_to(self.url("ann", roles=roles.pop(0) if 1 < len(roles) else roles[0])))
        client.open()
        client.sdk.join_group("g")
        self.comes_too_late(client)
        failure = client.failed_joins.next()
        self.assertEqual((failure.group, failure.error.error_detail.name), ("g", "Forbidden"))
        self.assertFalse(self.service.group_exists("g"))

    def test_a_connection_that_was_closed_meanwhile(self):
        client = self.travel("ann")
        client.sdk.join_group("g")
        self.road.close_door()
        self.road.cut()
        self.is_lost()
        self.service.close_connection(client.id, reason="closed meanwhile")
        self.assertFalse(self.service.connection_exists(client.id))
        self.road.open_door()
        self.has_joined("g", self.is_new(client))

    def test_the_other_protocol_never_recovers(self):
        client = self.travel("ann", protocol=WebPubSubProtocolType.JSON)
        client.sdk.join_group("g")
        self.road.cut()
        self.has_joined("g", self.is_new(client))
        self.service.send_to_group("g", "x", content_type=TEXT_TYPE)
        self.got((client, Message("x", group="g")))
        client.close()

    def test_a_connection_nobody_comes_back_to(self):
        client = self.travel("ann")
        self.road.close_door()
        self.road.cut()
        self.is_lost()
        client.sdk.close()
        self.upstream["disconnected"].next(lambda event: event.connection_id == client.id)
        self.assertFalse(self.service.user_exists("ann"))


@both
class FullBuffer(Traveller):
    """A client that leaves too much unacknowledged loses its connection, not the service its memory."""

    configuration = "[limits]\nrecovery_messages_max = 50\n"

    def test_more_than_is_kept(self):
        client = self.travel("ann")
        old = client.id
        self.road.close_door()
        self.road.cut()
        self.is_lost()
        for number in range(51):
            self.service.send_to_user("ann", number)
        self.upstream["disconnected"].next()
        self.assertFalse(self.service.connection_exists(old))
        self.road.open_door()
        self.assertEqual(client.disconnections.next().connection_id, old)
        self.assertNotEqual(client.connections.next().connection_id, old)
        # Nothing of the old connection comes now: a gap would be a lie.
        self.got((client,))


@both
class Restart(Traveller):
    """The service is replaced by another one behind the same name."""

    top_level = 'public_endpoints = ["http://hooks.example.com"]'

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.stage.upstream.origin = "hooks.example.com"

    def use_hub(self, hub, handlers=None):
        self.road = self.proxy()
        super().use_hub(hub, handlers)

    def setUp(self):
        # The road is there before the service client is.
        super(Traveller, self).setUp()

    def service_client(self, connection_string=None, hub=None, **options):
        return super().service_client(
            f"Endpoint=http://hooks.example.com;AccessKey={PRIMARY_KEY};Version=1.0;",
            hub,
            reverse_proxy_endpoint=f"http://{self.road.address}",
            **options,
        )

    def test_clients_go_to_the_new_one(self):
        reliable = self.travel("ann")
        plain = self.travel("bob", protocol=WebPubSubProtocolType.JSON)
        clients = (reliable, plain)
        for client in clients:
            client.sdk.join_group("g")
        # Not in the record of the first: this one has no handler for its events.
        second = Service(f"public_endpoints = {json.dumps(['http://hooks.example.com'])}")
        self.addCleanup(second.clear)
        self.road.target = second.address
        self.road.cut()
        for client in clients:
            old, client.id = client.id, client.connections.next().connection_id
            self.assertNotEqual(client.id, old)
            self.assertEqual(client.disconnections.next().connection_id, old)
            self.has_joined("g", client.id)
        self.service.send_to_group("g", "from the new one", content_type=TEXT_TYPE)
        for client in clients:
            self.assertEqual(client.next(), Message("from the new one", group="g"))
            client.close()
        self.assertEqual(second.stop(), 0)
        self.assertNotIn("panicked", second.log)

    def test_an_orderly_end(self):
        second = Service(f"public_endpoints = {json.dumps(['http://hooks.example.com'])}")
        self.addCleanup(second.clear)
        third = Service(f"public_endpoints = {json.dumps(['http://hooks.example.com'])}")
        self.addCleanup(third.clear)
        self.road.target = second.address
        reliable = self.travel("ann")
        plain = self.travel("bob", protocol=WebPubSubProtocolType.JSON)
        for client in (reliable, plain):
            client.sdk.join_group("g")
        self.road.target = third.address
        self.assertEqual(second.stop(), 0)
        for client in (reliable, plain):
            client.id = client.connections.next().connection_id
            self.has_joined("g", client.id)
        self.service.send_to_group("g", "x", content_type=TEXT_TYPE)
        for client in (reliable, plain):
            self.assertEqual(client.next(), Message("x", group="g"))
            client.close()
        self.assertEqual(third.stop(), 0)
