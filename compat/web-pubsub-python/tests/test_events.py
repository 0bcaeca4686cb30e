"""What the upstream is told of clients of the SDK, and what its answers do."""

from azure.core.pipeline.policies import RetryMode
from azure.messaging.webpubsubclient.models import OpenClientError, WebPubSubProtocolType

from lib.stage import BINARY, EVERY_ROLE, JSON, PROTOBUF, TEXT, Message, both
from lib.upstream import Answer, json_body, text

ANY = bytes([0x0A, 3]) + b"t/a" + bytes([0x12, 2, 0x08, 0x07])
"""A serialised google.protobuf.Any."""


@both
class Connecting:
    def test_what_is_told(self):
        url = self.url("ann", roles=["webpubsub.sendToGroup"], groups=["g"]) + "&room=a%20b&room=c&empty="
        self.client(url).sdk.open()
        event = self.upstream["connect"].next()
        self.assertEqual((event.user_id, event.subprotocol, event.state), ("ann", None, None))
        self.assertTrue(event.content_type.startswith("application/json"))
        told = event.json
        self.assertEqual(told["query"], {"room": ["a b", "c"], "empty": [""]})
        self.assertEqual(told["subprotocols"], ["json.reliable.webpubsub.azure.v1"])
        self.assertEqual(told["clientCertificates"], [])
        self.assertEqual(told["claims"]["sub"], ["ann"])
        self.assertEqual(told["claims"]["role"], ["webpubsub.sendToGroup"])
        self.assertEqual(told["claims"]["webpubsub.group"], ["g"])
        self.assertNotIn("authorization", {name.lower() for name in told["headers"]})
        self.assertNotIn("access_token", event.text)
        connected = self.upstream["connected"].next()
        self.assertEqual(connected.json, {})
        self.assertEqual((connected.user_id, connected.subprotocol), ("ann", "json.reliable.webpubsub.azure.v1"))
        self.assertEqual(connected.connection_id, event.connection_id)

    def test_what_it_decides(self):
        self.answer(
            connect=lambda event: json_body(
                {
                    "userId": "bob",
                    "groups": ["h"],
                    "roles": ["webpubsub.sendToGroup.h"],
                    "subprotocol": event.json["subprotocols"][0],
                    "unknown": 7,
                },
                ce_connectionState="c3RhdGU=",
            )
        )
        client = self.client(self.url("ann", roles=EVERY_ROLE, groups=["g"]))
        client.sdk.open()
        connected = client.connections.next()
        self.assertEqual(connected.user_id, "bob")
        self.assertFalse(self.service.user_exists("ann"))
        self.assertFalse(self.service.group_exists("g"))
        client.sdk.send_to_group("h", "mine", TEXT)
        self.assertEqual(client.next(), Message("mine", group="h", user="bob"))
        self.send_fails("Forbidden", client.sdk.join_group, "h")
        event = self.upstream["connected"].next()
        self.assertEqual((event.user_id, event.state), ("bob", "c3RhdGU="))

    def test_what_it_leaves_as_it_is(self):
        for answer in (Answer(204), Answer(200), json_body({}), json_body({"groups": []}), json_body(None)):
            self.answer(connect=lambda event, answer=answer: answer)
            client = self.join("ann", groups=["g"])
            client.sdk.send_to_group("g", "x", TEXT)
            self.assertEqual(client.next(), Message("x", group="g", user="ann"))
            client.close()

    def test_no_roles_at_all(self):
        self.answer(connect=lambda event: json_body({"roles": []}))
        client = self.join(groups=["g"])
        self.send_fails("Forbidden", client.sdk.send_to_group, "g", "x", TEXT)
        self.send_fails("Forbidden", client.sdk.join_group, "g")

    def test_what_it_refuses(self):
        for status in (400, 401, 403, 404, 429, 500, 503):
            self.answer(connect=lambda event, status=status: Answer(status, "go away", "text/plain"))
            with self.subTest(status=status), self.assertRaises(OpenClientError) as caught:
                self.client(self.url("ann")).sdk.open()
            self.assertIn(str(status), str(caught.exception))
        self.assertFalse(self.service.user_exists("ann"))

    def test_answers_that_are_none(self):
        for body in ("{", '{"userId": 7}', '{"groups": "g"}', '{"roles": [7]}', '{"subprotocol": "not.offered"}'):
            self.answer(connect=lambda event, body=body: Answer(200, body, "application/json", admits=False))
            with self.subTest(body=body), self.assertRaises(OpenClientError) as caught:
                self.client().sdk.open()
            self.assertIn("500", str(caught.exception))


@both
class Events:
    def test_each_type(self):
        self.answer(order=lambda event: Answer(204))
        for protocol in WebPubSubProtocolType:
            client = self.join("ann", protocol=protocol)
            for data, data_type, content_type, body in (
                ("ünïcödé ☃", TEXT, "text/plain", "ünïcödé ☃".encode()),
                ({"a": [1, None]}, JSON, "application/json", None),
                (memoryview(b"\x00\xff"), BINARY, "application/octet-stream", b"\x00\xff"),
                (memoryview(ANY), PROTOBUF, "application/x-protobuf", ANY),
            ):
                with self.subTest(protocol=protocol, type=data_type):
                    client.sdk.send_event("order", data, data_type)
                    event = self.upstream["order"].next()
                    self.assertEqual(event.content_type.split(";")[0], content_type)
                    if body is None:
                        self.assertEqual(event.json, data)
                    else:
                        self.assertEqual(event.body, body)
                    self.assertEqual(
                        (event.connection_id, event.user_id, event.subprotocol), (client.id, "ann", protocol.value)
                    )
            self.got((client,))
            client.close()

    def test_answers_go_to_the_caller(self):
        caller, other = self.join(), self.join()
        for answer, message in (
            (text("ünïcödé ☃"), Message("ünïcödé ☃")),
            (text("with a charset"), Message("with a charset")),
            (json_body({"a": [1, None]}), Message({"a": [1, None]}, "json")),
            (json_body("a text"), Message("a text", "json")),
            (Answer(200, b"\x00\xff", "application/octet-stream"), Message(b"\x00\xff", "binary")),
            (Answer(200, b"<b>", "text/html"), Message(b"<b>", "binary")),
            (text("x" * 2_000_000), Message("x" * 2_000_000)),
        ):
            self.answer(ask=lambda event, answer=answer: answer)
            caller.sdk.send_event("ask", "?", TEXT)
            self.assertEqual(caller.next(), message)
        for answer in (Answer(204), Answer(200), Answer(200, b"", "text/plain")):
            self.answer(ask=lambda event, answer=answer: answer)
            caller.sdk.send_event("ask", "?", TEXT)
        self.got((caller,), (other,))

    def test_in_their_order_without_acks(self):
        client = self.join()
        self.answer(count=lambda event: text(event.text))
        for number in range(50):
            client.sdk.send_event("count", str(number), TEXT, ack=False)
        client.sdk.send_event("count", "last", TEXT)
        texts = [*map(str, range(50)), "last"]
        self.assertEqual([event.text for event in self.upstream["count"].take_all()], texts)
        self.got((client, *map(Message, texts)))

    def test_names_of_events(self):
        client = self.join()
        for name in ("a", "A_b-c.1", "e" * 128):
            client.sdk.send_event(name, "x", TEXT)
            self.assertEqual(self.upstream[name].next().name, name)

    def test_failures(self):
        client = self.join()
        for status in (400, 401, 404, 429, 500, 503):
            self.answer(order=lambda event, status=status: Answer(status, "no", "text/plain"))
            with self.subTest(status=status):
                self.send_fails("InternalServerError", client.sdk.send_event, "order", "x", TEXT)
                client.sdk.send_event("order", "x", TEXT, ack=False)
        # Events without acks may still be on their way, and fail as before.
        self.answer(order=lambda event: text("yes") if event.text == "now" else Answer(500))
        client.sdk.send_event("order", "now", TEXT)
        self.got((client, Message("yes")))

    def test_a_failure_is_tried_again_by_the_client(self):
        client = self.join(message_retry_total=2, message_retry_backoff_factor=0.01, message_retry_mode=RetryMode.Fixed)
        answers = [Answer(500), Answer(500), text("at last")]
        self.answer(order=lambda event: answers.pop(0))
        client.sdk.send_event("order", "x", TEXT)
        self.assertEqual([event.text for event in self.upstream["order"].take_all()], ["x"] * 3)
        self.got((client, Message("at last")))

    def test_an_ack_id_that_was_used(self):
        client = self.join()
        answers = [Answer(500), text("done")]
        self.answer(order=lambda event: answers.pop(0))
        self.send_fails("InternalServerError", client.sdk.send_event, "order", "first", TEXT, ack_id=1 << 40)
        for again in ("second", "third"):
            client.sdk.send_event("order", again, TEXT, ack_id=1 << 40)
        self.assertEqual([event.text for event in self.upstream["order"].take_all()], ["first", "second"])
        self.got((client, Message("done")))

    def test_a_state(self):
        client = self.join()
        states = ["Zmlyc3Q=", "c2Vjb25k", None]
        self.answer(order=lambda event: text("x", **({"ce_connectionState": states[0]} if states[0] else {})))
        seen = []
        while states:
            client.sdk.send_event("order", "x", TEXT)
            seen.append(self.upstream["order"].next().state)
            states.pop(0)
        self.assertEqual(seen, [None, "Zmlyc3Q=", "c2Vjb25k"])
        client.close()
        self.assertEqual(self.upstream["disconnected"].next().state, "c2Vjb25k")

    def test_sends_to_groups_are_no_events(self):
        client = self.join(groups=["g"])
        client.sdk.send_to_group("g", "x", TEXT)
        client.sdk.send_event("message", "y", TEXT)
        self.assertEqual(self.upstream.record[client.id], ["connect", "connected", "message"])


@both
class WithoutHandlers:
    """A hub whose events nobody handles, or only some."""

    configuration = """
[[hub]]
name = "nobody"
event_handler = []

[[hub]]
name = "picky"
[[hub.event_handler]]
url_template = "http://127.0.0.1:1/{event}"
user_event_pattern = "unreachable"
"""

    def test_clients_come_in_and_their_events_fail(self):
        for hub in ("nobody", "picky"):
            self.use_hub(hub)
            client = self.join("ann", groups=["g"])
            client.sdk.send_to_group("g", "x", TEXT)
            self.assertEqual(client.next(), Message("x", group="g", user="ann"))
            self.send_fails("InternalServerError", client.sdk.send_event, "order", "x", TEXT)
            client.sdk.send_event("order", "x", TEXT, ack=False)
            self.got((client,))

    def test_a_handler_that_cannot_be_reached(self):
        self.use_hub("picky")
        client = self.join(ack_timeout=30.0)
        self.send_fails("InternalServerError", client.sdk.send_event, "unreachable", "x", TEXT)
        self.got((client,))
