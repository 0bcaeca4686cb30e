"""The client: opening and closing, groups, messages, callbacks, acks; with both protocols where they could differ."""

from azure.core.pipeline.policies import RetryMode
from azure.messaging.webpubsubclient.models import (
    CallbackType,
    OpenClientError,
    SendMessageError,
    WebPubSubProtocolType,
)

from lib.stage import BINARY, EVERY_ROLE, JSON, PROTOBUF, TEXT, Message, as_message, both
from lib.upstream import Answer
from lib.waiting import Mailbox

TEXT_TYPE = "text/plain"

ANY = bytes([0x0A, 3]) + b"t/a" + bytes([0x12, 2, 0x08, 0x07])
"""A serialised google.protobuf.Any."""


@both
class Lifecycle:
    configuration = '[[hub]]\nname = "open_house"\nanonymous_connect = "allow"\n'

    def test_opening_and_closing(self):
        for protocol in WebPubSubProtocolType:
            with self.subTest(protocol=protocol):
                client = self.client(self.url("ann"), protocol=protocol)
                self.assertFalse(client.sdk.is_connected())
                client.sdk.open()
                connected = client.connections.next()
                self.assertEqual(connected.user_id, "ann")
                self.assertTrue(client.sdk.is_connected())
                self.assertTrue(self.service.connection_exists(connected.connection_id))
                event = self.upstream["connected"].next()
                self.assertEqual((event.connection_id, event.subprotocol), (connected.connection_id, protocol.value))

                client.sdk.close()
                self.assertEqual(client.disconnections.next().connection_id, connected.connection_id)
                client.stops.next()
                self.assertFalse(client.sdk.is_connected())
                # A client that says goodbye is gone at once, a reliable one too.
                event = self.upstream["disconnected"].next()
                self.assertEqual((event.connection_id, event.user_id), (connected.connection_id, "ann"))
                self.assertFalse(self.service.connection_exists(connected.connection_id))

    def test_as_a_context_manager(self):
        client = self.client()
        with self.kind.inside(client.sdk.target):
            self.assertTrue(client.sdk.is_connected())
            self.service.send_to_connection(client.connections.next().connection_id, "hi", content_type=TEXT_TYPE)
            self.assertEqual(client.next(), Message("hi"))
        self.assertFalse(client.sdk.is_connected())
        client.stops.next()

    def test_the_same_client_again(self):
        # In the blocking kind the reader of a connection that was closed may sleep for 10 s and then take the present one for lost:
        # what wakes nobody must be over long before.
        client = self.client(ack_timeout=1.0, start_timeout=1.0, message_retry_total=3, message_retry_backoff_factor=0.01)
        ids = set()
        for _ in range(3):
            ids.add(client.open().id)
            client.sdk.join_group("g")
            client.close()
        self.assertEqual(len(ids), 3)
        # What it had joined it joins again, in each connection.
        client.open()
        self.has_joined("g", client.id)

    def test_opening_twice(self):
        client = self.join()
        with self.assertRaises(OpenClientError):
            client.sdk.open()
        self.got((client,))

    def test_closing_what_is_not_open(self):
        client = self.client()
        client.sdk.close()
        client.open().close()
        client.sdk.close()

    def test_a_credential_that_is_asked(self):
        asked = []

        def provide():
            asked.append(self.url(f"user {len(asked)}"))
            return asked[-1]

        client = self.client(provide)
        for number in range(2):
            client.sdk.open()
            self.assertEqual(client.connections.next().user_id, f"user {number}")
            client.close()
        self.assertEqual(len(asked), 2)

    def test_a_credential_that_fails(self):
        def provide():
            raise LookupError("no URL today")

        with self.assertRaises(LookupError):
            self.client(provide).sdk.open()
        with self.assertRaises(TypeError):
            self.kind.client_class(7)

    def test_being_refused(self):
        base = self.service.get_client_access_token()["baseUrl"]
        token = self.service.get_client_access_token()["token"]
        root = base.removesuffix(f"/client/hubs/{self.hub}")
        for url, status in {
            base: 401,
            f"{base}?access_token=rubbish": 401,
            f"{root}/client/hubs/a%20hub?access_token={token}": 400,
            f"{root}/client/nothing?access_token={token}": 404,
        }.items():
            with self.subTest(url=url.split("?")[0]), self.assertRaises(OpenClientError) as caught:
                self.client(url).sdk.open()
            self.assertIn(str(status), str(caught.exception))
        self.assertEqual(len(self.upstream["connect"]), 0)

    def test_the_hub_as_a_parameter(self):
        made = self.service.get_client_access_token(user_id="ann")
        root = made["baseUrl"].removesuffix(f"/hubs/{self.hub}")
        for path in ("/", ""):
            client = self.client(f"{root}{path}?hub={self.hub}&access_token={made['token']}")
            client.sdk.open()
            self.assertEqual(client.connections.next().user_id, "ann")

    def test_nobody_in_particular(self):
        self.use_hub("open_house")
        base = self.service.get_client_access_token()["baseUrl"]
        client = self.client(base)
        client.sdk.open()
        self.assertFalse(client.connections.next().user_id)
        self.send_fails("Forbidden", client.sdk.join_group, "g")
        # A token that is there must be good.
        with self.assertRaises(OpenClientError):
            self.client(f"{base}?access_token=rubbish").sdk.open()
        client = self.client(self.url("ann"))
        client.sdk.open()
        self.assertEqual(client.connections.next().user_id, "ann")

    def test_its_name(self):
        self.client(self.url(), user_agent="the tests").open()
        [agent] = [
            values[0] for name, values in self.upstream["connect"].next().json["headers"].items() if name.lower() == "user-agent"
        ]
        self.assertIn("the tests", agent)
        self.assertIn("webpubsub-client/1.1.0", agent)


@both
class Groups:
    def test_joining_and_leaving(self):
        for protocol in WebPubSubProtocolType:
            client = self.join(protocol=protocol)
            for text in ("before", "between", "after"):
                self.service.send_to_group("g", text, content_type=TEXT_TYPE)
                if text == "before":
                    client.sdk.join_group("g")
                    client.sdk.join_group("g")
                elif text == "between":
                    client.sdk.leave_group("g")
                    client.sdk.leave_group("g")
            self.got((client, Message("between", group="g")))
            client.close()
            self.is_gone(client.id)

    def test_without_permission(self):
        client = self.join(roles=["webpubsub.joinLeaveGroup.allowed"])
        client.sdk.join_group("allowed")
        error = self.send_fails("Forbidden", client.sdk.join_group, "g")
        self.assertTrue(error.error_detail.message)
        self.assertIsNotNone(error.ack_id)
        self.send_fails("Forbidden", client.sdk.leave_group, "g")
        self.send_fails("Forbidden", client.sdk.send_to_group, "allowed", "x", TEXT)
        self.assertFalse(self.service.group_exists("g"))
        self.got((client,))

    def test_a_refusal_is_tried_again_as_often_as_wanted(self):
        client = self.join(
            roles=[], message_retry_total=2, message_retry_backoff_factor=0.01, message_retry_mode=RetryMode.Fixed
        )
        self.send_fails("Forbidden", client.sdk.join_group, "g")
        self.service.grant_permission("joinLeaveGroup", client.id, target_name="g")
        client.sdk.join_group("g")
        self.has_joined("g", client.id)

    def test_names(self):
        client = self.join()
        for group in ("a b", "ünïcödé/☃", '"\\', "g" * 1024):
            client.sdk.join_group(group)
            client.sdk.send_to_group(group, "hi", TEXT)
            self.assertEqual(client.next(), Message("hi", group=group))
            client.sdk.leave_group(group)
            self.assertFalse(self.service.group_exists(group))


@both
class Messages:
    def test_each_type(self):
        for protocol in WebPubSubProtocolType:
            sender, receiver = self.join("ann", protocol=protocol), self.join("bob", groups=["g"], protocol=protocol)
            for data, data_type, received in (
                ("plain", TEXT, "plain"),
                ("ünïcödé ☃ 🎉\n\"'", TEXT, "ünïcödé ☃ 🎉\n\"'"),
                ("", TEXT, ""),
                ("x" * 500_000, TEXT, "x" * 500_000),
                ({"a": [1, 2.5, None, False], "ü": {}}, JSON, {"a": [1, 2.5, None, False], "ü": {}}),
                ([], JSON, []),
                ("a text", JSON, "a text"),
                (0, JSON, 0),
                (memoryview(bytes(range(256))), BINARY, bytes(range(256))),
                (memoryview(b""), BINARY, b""),
                (memoryview(ANY), PROTOBUF, ANY),
            ):
                with self.subTest(protocol=protocol, type=data_type):
                    sender.sdk.send_to_group("g", data, data_type)
                    self.assertEqual(receiver.next(), Message(received, data_type.value, "g", "ann"))
            sender.close()
            receiver.close()

    def test_an_echo_and_none(self):
        sender, receiver = self.join("ann", groups=["g"]), self.join(groups=["g"])
        sender.sdk.send_to_group("g", "with", TEXT)
        sender.sdk.send_to_group("g", "without", TEXT, no_echo=True)
        sender.sdk.send_to_group("g", "not wanted", TEXT, no_echo=False)
        told = [Message(text, group="g", user="ann") for text in ("with", "without", "not wanted")]
        self.got((sender, told[0], told[2]), (receiver, *told))

    def test_a_sender_need_not_be_a_member(self):
        sender, receiver = self.join(), self.join(groups=["g"])
        sender.sdk.send_to_group("g", "from outside", TEXT)
        sender.sdk.send_to_group("nobody is here", "x", TEXT)
        self.got((sender,), (receiver, Message("from outside", group="g")))

    def test_without_acks_in_their_order(self):
        sender, receiver = self.join("ann"), self.join(groups=["g"])
        for number in range(200):
            sender.sdk.send_to_group("g", number, JSON, ack=False)
        # What is acked has come after all of them.
        sender.sdk.send_to_group("g", "last", TEXT)
        told = [Message(number, "json", "g", "ann") for number in range(200)]
        self.got((receiver, *told, Message("last", group="g", user="ann")), (sender,))

    def test_without_permission_and_without_acks(self):
        sender, receiver = self.join(roles=["webpubsub.sendToGroup.h"]), self.join(groups=["g", "h"])
        sender.sdk.send_to_group("g", "x", TEXT, ack=False)
        sender.sdk.send_to_group("h", "allowed", TEXT)
        self.send_fails("Forbidden", sender.sdk.send_to_group, "g", "x", TEXT)
        self.got((receiver, Message("allowed", group="h")), (sender,))

    def test_an_ack_id_that_was_used(self):
        sender, receiver = self.join("ann"), self.join(groups=["g"])
        for text in ("once", "never"):
            sender.sdk.send_to_group("g", text, TEXT, ack_id=7_000_000_000)
        # What was refused may be said again.
        self.service.revoke_permission("sendToGroup", sender.id, target_name="g")
        self.send_fails("Forbidden", sender.sdk.send_to_group, "g", "refused", TEXT, ack_id=8)
        self.service.grant_permission("sendToGroup", sender.id, target_name="g")
        sender.sdk.send_to_group("g", "now", TEXT, ack_id=8)
        # The id stands for the connection, whatever the request is.
        sender.sdk.join_group("g", ack_id=8)
        self.assertEqual(
            [member.connection_id for member in self.service.items("list_connections", group="g")], [receiver.id]
        )
        self.got((receiver, Message("once", group="g", user="ann"), Message("now", group="g", user="ann")), (sender,))

    def test_what_the_client_itself_refuses(self):
        client = self.join()
        for data, data_type in ((7, TEXT), (b"bytes", BINARY), ("text", PROTOBUF), ("text", "html")):
            with self.assertRaises(TypeError):
                client.sdk.send_to_group("g", data, data_type)
        self.got((client,))

    def test_a_message_larger_than_allowed(self):
        client = self.join(groups=["g"], reconnect_retry_total=0, protocol=WebPubSubProtocolType.JSON)
        try:
            client.sdk.send_to_group("g", "x" * 1024 * 1024, TEXT)
        except Exception as error:
            # The transport may break while the client is still writing, or while it waits.
            self.assertNotIsInstance(error, AssertionError)
        else:
            self.fail("the message was taken")
        client.stops.next()
        self.is_gone(client.id)

    def test_a_closed_client_sends_nothing(self):
        client = self.join()
        client.close()
        for call in (
            (client.sdk.join_group, "g"),
            (client.sdk.leave_group, "g"),
            (client.sdk.send_to_group, "g", "x", TEXT),
            (client.sdk.send_event, "e", "x", TEXT),
        ):
            with self.assertRaises(SendMessageError):
                call[0](*call[1:])

    def test_many_receivers(self):
        sender = self.join("ann")
        receivers = [self.join(groups=["g"], protocol=protocol) for protocol in [*WebPubSubProtocolType] * 5]
        sender.sdk.send_to_group("g", "all of you", TEXT)
        self.got((sender,), *[(receiver, Message("all of you", group="g", user="ann")) for receiver in receivers])

    def test_the_places_of_reliable_messages(self):
        client = self.join(groups=["g"])
        for number in range(20):
            self.service.send_to_group("g", number)
        taken = client.wait_for_mark(self.mark())
        self.assertEqual([(message.sequence_id, message.data) for message in taken], [(n + 1, n) for n in range(20)])
        plain = self.join(groups=["g"], protocol=WebPubSubProtocolType.JSON)
        self.service.send_to_group("g", "without", content_type=TEXT_TYPE)
        self.assertIsNone(plain.messages.next().sequence_id)

    def mark(self):
        self.service.send_to_all("the end", content_type=TEXT_TYPE)
        return "the end"


@both
class Callbacks:
    def test_several_and_fewer(self):
        client = self.join()
        first, second = Mailbox("the first listener"), Mailbox("the second listener")
        listeners = [self.kind.listener(first.put), self.kind.listener(second.put)]
        for listener in listeners:
            client.sdk.subscribe(CallbackType.SERVER_MESSAGE, listener)
        self.service.send_to_all("both", content_type=TEXT_TYPE)
        for mailbox in (first, second, client.messages):
            self.assertEqual(as_message(mailbox.next()), Message("both"))
        client.sdk.unsubscribe(CallbackType.SERVER_MESSAGE, listeners[0])
        client.sdk.unsubscribe(CallbackType.SERVER_MESSAGE, listeners[0])
        client.sdk.unsubscribe(CallbackType.GROUP_MESSAGE, listeners[1])
        self.service.send_to_all("one", content_type=TEXT_TYPE)
        self.assertEqual(as_message(second.next()), Message("one"))
        self.got((client, Message("one")))
        self.kind.settle()
        self.assertEqual(len(first), 0)

    def test_every_kind_of_them(self):
        told, untold = Mailbox("what a listener is told"), Mailbox("what nobody listens to")
        client = self.join()
        for event in CallbackType:
            listener = self.kind.listener(lambda *_, event=event: told.put(event))
            client.sdk.subscribe(event, listener)
            gone = self.kind.listener(lambda *_, event=event: untold.put(event))
            client.sdk.subscribe(event, gone)
            client.sdk.unsubscribe(event, gone)
        client.sdk.join_group("g")
        self.service.send_to_group("g", "x")
        told.next(lambda event: event == CallbackType.GROUP_MESSAGE)
        self.service.send_to_all("x")
        told.next(lambda event: event == CallbackType.SERVER_MESSAGE)
        client.close()
        told.next(lambda event: event == CallbackType.DISCONNECTED)
        told.next(lambda event: event == CallbackType.STOPPED)
        # The next connection may not join the group.
        self.answer(connect=lambda event: Answer(200, '{"roles": []}', "application/json"))
        client.open()
        told.next(lambda event: event == CallbackType.CONNECTED)
        told.next(lambda event: event == CallbackType.REJOIN_GROUP_FAILED)
        failure = client.failed_joins.next()
        self.assertEqual((failure.group, failure.error.error_detail.name), ("g", "Forbidden"))
        self.kind.settle()
        self.assertEqual(untold.take_all(), [])
