"""Sending through the service client: to whom it goes, in which form, and what is refused."""

import io

from azure.messaging.webpubsubclient.models import WebPubSubProtocolType

from lib.stage import Message, both

BINARY_TYPE, TEXT_TYPE = "application/octet-stream", "text/plain"

BODY_BYTES_MAX = 1024 * 1024


@both
class Forms:
    """The payload arrives as what it was, at clients of both protocols."""

    def clients(self):
        return [self.join("ann", groups=["g"], protocol=protocol) for protocol in WebPubSubProtocolType]

    def sends(self, clients):
        """Each way to send, with the group that the message shows and the clients that get it."""
        yield self.service.send_to_all, [], None, clients
        yield self.service.send_to_group, ["g"], "g", clients
        yield self.service.send_to_user, ["ann"], None, clients
        for client in clients:
            yield self.service.send_to_connection, [client.id], None, [client]

    def test_text(self):
        clients = self.clients()
        for send, target, group, receivers in self.sends(clients):
            for text in ("plain", "two\nlines", "ünïcödé ☃ 🎉", '"quoted"', " ", "x" * 70_000):
                # Not as `str`: the asyncio kind counts its characters for the length of the body, and cuts it off there.
                send(*target, text.encode(), content_type=TEXT_TYPE)
                for client in receivers:
                    self.assertEqual(client.next(), Message(text, group=group))
        self.got(*[(client,) for client in clients])

    def test_json(self):
        clients = self.clients()
        values = [{"a": [1, 2.5, None, True], "ü": {"deep": ""}}, [], [1, [2]], "a text", 7, True, {}]
        for send, target, group, receivers in self.sends(clients):
            for value in values:
                # JSON is what is sent when nothing is said.
                send(*target, value)
                send(*target, value, content_type="application/json; charset=utf-8")
                for client in receivers:
                    # The blocking kind may call back in another order, so both are the same.
                    self.assertEqual(client.next(), Message(value, "json", group))
                    self.assertEqual(client.next(), Message(value, "json", group))
        self.got(*[(client,) for client in clients])

    def test_bytes(self):
        clients = self.clients()
        for send, target, group, receivers in self.sends(clients):
            for data in (b"\x00\xff\xfe", bytes(range(256)) * 300, b"text all the same"):
                send(*target, io.BytesIO(data), content_type=BINARY_TYPE)
                for client in receivers:
                    self.assertEqual(client.next(), Message(data, "binary", group))
                send(*target, data, content_type=BINARY_TYPE)
                for client in receivers:
                    self.assertEqual(client.next(), Message(data, "binary", group))
        self.got(*[(client,) for client in clients])

    def test_many_in_their_order(self):
        client = self.join()
        for number in range(200):
            self.service.send_to_all(number)
        self.got((client, *[Message(number, "json") for number in range(200)]))

    def test_the_largest_body(self):
        client = self.join()
        text = "x" * BODY_BYTES_MAX
        self.service.send_to_all(text, content_type=TEXT_TYPE)
        self.got((client, Message(text)))
        error = self.refused(413, self.service.send_to_all, text + "x", content_type=TEXT_TYPE)
        self.assertLess(len(str(error)), 1000)
        self.got((client,))

    def test_other_content_types_are_refused_by_the_client_itself(self):
        for send, target in (
            (self.service.send_to_all, []),
            (self.service.send_to_group, ["g"]),
            (self.service.send_to_user, ["ann"]),
            (self.service.send_to_connection, ["c"]),
        ):
            with self.assertRaises(ValueError):
                send(*target, "x", content_type="text/html")


@both
class Receivers:
    def test_all(self):
        ann, bob, anonymous = self.join("ann"), self.join("bob", groups=["g"]), self.join()
        self.service.send_to_all("all", content_type=TEXT_TYPE)
        self.service.send_to_all("but two", content_type=TEXT_TYPE, excluded=[ann.id, anonymous.id])
        self.service.send_to_all("but nobody", content_type=TEXT_TYPE, excluded=["absent"])
        self.got(
            (ann, Message("all"), Message("but nobody")),
            (bob, Message("all"), Message("but two"), Message("but nobody")),
            (anonymous, Message("all"), Message("but nobody")),
        )

    def test_a_group(self):
        ann, bob, other = self.join("ann", groups=["g"]), self.join("bob", groups=["g", "h"]), self.join(groups=["h"])
        self.service.send_to_group("g", "g", content_type=TEXT_TYPE)
        self.service.send_to_group("g", "not ann", content_type=TEXT_TYPE, excluded=[ann.id])
        self.service.send_to_group("G", "names know case", content_type=TEXT_TYPE)
        self.got(
            (ann, Message("g", group="g")),
            (bob, Message("g", group="g"), Message("not ann", group="g")),
            (other,),
        )

    def test_groups_with_uncommon_names(self):
        for group in ("a b", "a/b", "ünïcödé ☃", "50%+'\"#?&=", "g" * 1024):
            with self.subTest(group=group):
                client = self.join(groups=[group])
                self.service.send_to_group(group, "hi", content_type=TEXT_TYPE)
                self.assertEqual(client.next(), Message("hi", group=group))
                self.assertTrue(self.service.group_exists(group))
                client.close()

    def test_a_user_with_several_connections(self):
        first, second, bob = self.join("ann"), self.join("ann", groups=["g"]), self.join("bob")
        self.service.send_to_user("ann", "both", content_type=TEXT_TYPE)
        self.service.send_to_user("ann", "one", content_type=TEXT_TYPE, filter="'g' in groups")
        self.service.send_to_user("Ann", "names know case", content_type=TEXT_TYPE)
        self.got((first, Message("both")), (second, Message("both"), Message("one")), (bob,))

    def test_one_connection(self):
        first, second = self.join("ann"), self.join("ann")
        self.service.send_to_connection(first.id, "one", content_type=TEXT_TYPE)
        self.got((first, Message("one")), (second,))

    def test_nobody(self):
        client = self.join("ann")
        self.service.send_to_group("absent", "x")
        self.service.send_to_user("absent", "x")
        self.service.send_to_connection("absent", "x")
        self.service.send_to_all("x", filter="userId eq 'absent'")
        self.got((client,))

    def test_filters(self):
        ann = self.join("ann", groups=["a", "b"])
        bob = self.join("bob", groups=["b", "it's"])
        anonymous = self.join(groups=["c"])
        everyone = [ann, bob, anonymous]
        for text, receivers in {
            "userId eq 'ann'": [ann],
            "userId ne 'ann'": [bob, anonymous],
            "userId eq null": [anonymous],
            "not (userId eq null)": [ann, bob],
            "'b' in groups": [ann, bob],
            "'b' in groups and not ('a' in groups)": [bob],
            "'it''s' in groups": [bob],
            f"connectionId in ('{ann.id}', '{anonymous.id}')": [ann, anonymous],
            f"connectionId eq '{bob.id}' or length(groups) eq 1": [bob, anonymous],
            "length(groups) ge 2 and startswith(userId, 'a')": [ann],
            "endswith(userId, 'b') or contains(userId, 'nn')": [ann, bob],
            "toupper(userId) eq 'ANN'": [ann],
            "tolower(concat(userId, 'X')) eq 'bobx'": [bob],
            "substring(userId, 1) eq 'nn'": [ann],
            "substring(userId, 1, 1) eq 'o'": [bob],
            "indexof(userId, 'o') gt 0": [bob],
            "trim(userId) eq 'ann'": [ann],
            "USERID eq 'ann' or userid eq 'bob'": [ann, bob],
            "true": everyone,
            "false": [],
            "": everyone,
        }.items():
            with self.subTest(filter=text):
                self.service.send_to_all(text or "everyone", content_type=TEXT_TYPE, filter=text)
                self.got(
                    *[
                        (client, *([Message(text or "everyone")] if client in receivers else []))
                        for client in everyone
                    ]
                )

    def test_a_filter_and_exclusions_go_together(self):
        ann, bob, cid = self.join("ann", groups=["g"]), self.join("bob", groups=["g"]), self.join("cid")
        options = {"content_type": TEXT_TYPE, "filter": "not (userId eq 'ann')", "excluded": [bob.id]}
        self.service.send_to_all("all", **options)
        self.service.send_to_group("g", "g", **options)
        self.got((ann,), (bob,), (cid, Message("all")))

    def test_filters_that_are_refused(self):
        client = self.join("ann", groups=["g"])
        sends = [(self.service.send_to_all,), (self.service.send_to_group, "g"), (self.service.send_to_user, "ann")]
        for text in ("invalid filter", "userId", "userId eq", "userId eq 'ann", "(userId eq 'ann'", "not userId eq 'a'", "nope(userId)", "length(7)", "userId eq 'ann' and"):
            for send, *target in sends:
                with self.subTest(filter=text, send=target):
                    error = self.refused(400, send, *target, "x", filter=text)
                    self.assertIn("Invalid syntax", error.error.message)
                    self.assertIn("filter", error.error.message)
        self.got((client,))

    def test_a_filter_without_end(self):
        for text in (" or ".join(["userId eq 'a'"] * 200), "(" * 200 + "true" + ")" * 200):
            self.refused(400, self.service.send_to_all, "x", filter=text)

    def test_time_to_live(self):
        # This client has no parameter for it yet, but lets query parameters be given.
        client = self.join("ann", groups=["g"])
        sends = [
            (self.service.send_to_all,),
            (self.service.send_to_group, "g"),
            (self.service.send_to_user, "ann"),
            (self.service.send_to_connection, client.id),
        ]
        for send, *target in sends:
            for seconds in (0, 1, 300):
                send(*target, [seconds], params={"messageTtlSeconds": seconds})
                self.assertEqual(client.next().data, [seconds])
            for seconds in (-1, 301, "soon"):
                self.refused(400, send, *target, "x", params={"messageTtlSeconds": seconds})
        self.got((client,))

    def test_bad_names(self):
        self.refused(400, self.service.send_to_group, " ", "x")
        self.refused(400, self.service.send_to_group, "g" * 1025, "x")
