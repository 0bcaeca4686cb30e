"""Connections, users, groups and permissions through the service client."""

from urllib.parse import urlsplit

from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.core.rest import HttpRequest
from azure.messaging.webpubsubclient.models import WebPubSubProtocolType

from lib.stage import TEXT, Message, both
from lib.waiting import eventually

TEXT_TYPE = "text/plain"


@both
class Exists:
    def test_connections_users_and_groups(self):
        self.assertFalse(self.service.user_exists("ann"))
        self.assertFalse(self.service.group_exists("g"))
        self.assertFalse(self.service.connection_exists("absent"))
        first, second = self.join("ann", groups=["g"]), self.join("ann")
        for client in (first, second):
            self.assertTrue(self.service.connection_exists(client.id))
        self.assertTrue(self.service.user_exists("ann"))
        self.assertTrue(self.service.group_exists("g"))
        first.close()
        self.is_gone(first.id)
        self.assertFalse(self.service.group_exists("g"))
        self.assertTrue(self.service.user_exists("ann"))
        second.close()
        self.is_gone(second.id)
        self.assertFalse(self.service.user_exists("ann"))

    def test_names_that_cannot_be(self):
        self.refused(400, self.service.group_exists, " ")
        self.refused(400, self.service.group_exists, "g" * 1025)


@both
class Closing:
    """A closed client is told why, and is not let back into its old connection."""

    def closed(self, client, reason):
        """Makes sure that the client was told this reason, and ended."""
        self.assertEqual(client.disconnections.next().message, reason)
        client.stops.next()
        eventually(lambda: not client.sdk.is_connected(), "the end of a client")
        self.assertFalse(self.service.connection_exists(client.id))
        event = self.upstream["disconnected"].next(lambda event: event.connection_id == client.id)
        self.assertEqual(event.json, {"reason": reason})

    def visitor(self, user=None, **options):
        return self.join(user, reconnect_retry_total=0, **options)

    def test_one(self):
        for protocol in WebPubSubProtocolType:
            client, other = self.visitor(protocol=protocol), self.join()
            self.service.close_connection(client.id, reason="enough, ünd ☃")
            self.closed(client, "enough, ünd ☃")
            self.got((other,))

    def test_without_a_reason(self):
        client = self.visitor()
        self.service.close_connection(client.id)
        self.closed(client, "ClosedByAppServer")

    def test_with_a_reason_longer_than_a_close_frame_takes(self):
        client = self.visitor()
        reason = "ü" * 500
        self.service.close_connection(client.id, reason=reason)
        self.closed(client, reason)

    def test_what_was_sent_before_arrives(self):
        client = self.visitor()
        for number in range(50):
            self.service.send_to_connection(client.id, number)
        self.service.close_connection(client.id, reason="now")
        client.disconnections.next()
        self.assertEqual([message.data for message in client.taken()], list(range(50)))

    def test_absent_ones(self):
        self.service.close_connection("absent", reason="x")
        self.service.close_group_connections("absent")
        self.service.close_user_connections("absent")
        self.service.close_all_connections()

    def test_a_group(self):
        ann, bob, stays, outside = (
            self.visitor("ann", groups=["g"]),
            self.visitor(groups=["g", "h"]),
            self.join(groups=["g"]),
            self.join(groups=["h"]),
        )
        self.service.close_group_connections("g", excluded=[stays.id], reason="the group ends")
        self.closed(ann, "the group ends")
        self.closed(bob, "the group ends")
        self.got((stays,), (outside,))

    def test_a_user(self):
        first, second, stays, bob = self.visitor("ann"), self.visitor("ann"), self.join("ann"), self.join("bob")
        self.service.close_user_connections("ann", excluded=[stays.id], reason="the user ends")
        self.closed(first, "the user ends")
        self.closed(second, "the user ends")
        self.got((stays,), (bob,))

    def test_all(self):
        clients, stays = [self.visitor(), self.visitor("ann"), self.visitor(groups=["g"])], self.join()
        self.service.close_all_connections(excluded=[stays.id], reason="the hub ends")
        for client in clients:
            self.closed(client, "the hub ends")
        self.got((stays,))
        stays.close()
        client = self.visitor()
        self.service.close_all_connections()
        self.closed(client, "ClosedByAppServer")

    def test_a_closed_client_comes_back_as_a_new_connection(self):
        client = self.join("ann", groups=["by token"])
        old = client.id
        client.sdk.join_group("joined")
        self.service.add_connection_to_group("by the service", old)
        self.service.close_connection(old, reason="again")
        disconnected = client.disconnections.next()
        self.assertEqual((disconnected.connection_id, disconnected.message), (old, "again"))
        new = client.connections.next().connection_id
        self.assertNotEqual(new, old)
        self.assertFalse(self.service.connection_exists(old))
        # It joins again what it had joined itself. The last group is the one it was in for the old connection only.
        self.has_joined("joined", new)
        for group in ("by token", "joined", "by the service"):
            self.service.send_to_group(group, group, content_type=TEXT_TYPE)
        self.got((client, Message("by token", group="by token"), Message("joined", group="joined")))

    def test_names_that_cannot_be(self):
        for call in (self.service.close_group_connections,):
            self.refused(400, call, " ")
        self.refused(400, self.service_client(hub="a hub").close_all_connections)
        self.refused(400, self.service_client(hub="a hub").close_user_connections, "ann")
        self.refused(400, self.service_client(hub="a hub").close_connection, "c")


@both
class Memberships:
    def members(self, *groups):
        """Sends to each group; the clients then show who got what."""
        for group in groups:
            self.service.send_to_group(group, group, content_type=TEXT_TYPE)

    def test_a_connection(self):
        first, second = self.join("ann"), self.join("ann")
        self.service.add_connection_to_group("g", first.id)
        self.service.add_connection_to_group("g", first.id)
        self.members("g")
        self.got((first, Message("g", group="g")), (second,))
        self.service.remove_connection_from_group("g", first.id)
        self.service.remove_connection_from_group("g", first.id)
        self.members("g")
        self.got((first,), (second,))

    def test_membership_is_not_a_permission(self):
        client = self.join(roles=[])
        self.service.add_connection_to_group("g", client.id)
        self.send_fails("Forbidden", client.sdk.send_to_group, "g", "x", TEXT)
        self.send_fails("Forbidden", client.sdk.leave_group, "g")
        self.got((client,))

    def test_an_absent_connection(self):
        error = self.refused(404, self.service.add_connection_to_group, "g", "absent")
        self.assertIsInstance(error, ResourceNotFoundError)
        self.service.remove_connection_from_group("g", "absent")
        self.service.remove_connection_from_all_groups("absent")
        self.assertFalse(self.service.group_exists("g"))

    def test_a_connection_that_has_ended(self):
        client = self.join()
        client.close()
        self.is_gone(client.id)
        self.refused(404, self.service.add_connection_to_group, "g", client.id)

    def test_all_groups_of_a_connection(self):
        client, other = self.join(groups=["a"]), self.join(groups=["a", "b"])
        client.sdk.join_group("b")
        self.service.add_connection_to_group("c", client.id)
        self.members("a", "b", "c")
        self.got(
            (client, Message("a", group="a"), Message("b", group="b"), Message("c", group="c")),
            (other, Message("a", group="a"), Message("b", group="b")),
        )
        self.service.remove_connection_from_all_groups(client.id)
        self.members("a", "b", "c")
        self.got((client,), (other, Message("a", group="a"), Message("b", group="b")))

    def test_a_user(self):
        first, second, bob = self.join("ann"), self.join("ann"), self.join("bob")
        self.service.add_user_to_group("g", "ann")
        self.members("g")
        self.got((first, Message("g", group="g")), (second, Message("g", group="g")), (bob,))
        # A user is its connections of that moment.
        third = self.join("ann")
        self.members("g")
        self.got((first, Message("g", group="g")), (second, Message("g", group="g")), (third,), (bob,))
        self.service.remove_connection_from_group("g", second.id)
        self.service.remove_user_from_group("g", "ann")
        self.members("g")
        self.got((first,), (second,), (third,), (bob,))

    def test_all_groups_of_a_user(self):
        first, second, bob = self.join("ann", groups=["a"]), self.join("ann", groups=["b"]), self.join("bob", groups=["a"])
        self.service.add_user_to_group("c", "ann")
        self.service.remove_user_from_all_groups("ann")
        self.members("a", "b", "c")
        self.got((first,), (second,), (bob, Message("a", group="a")))

    def test_an_absent_user(self):
        error = self.refused(404, self.service.add_user_to_group, "g", "absent")
        self.assertIsInstance(error, ResourceNotFoundError)
        self.service.remove_user_from_group("g", "absent")
        self.service.remove_user_from_all_groups("absent")
        self.assertFalse(self.service.group_exists("g"))

    def test_names_that_cannot_be(self):
        client = self.join("ann")
        for group in (" ", "g" * 1025):
            self.refused(400, self.service.add_connection_to_group, group, client.id)
            self.refused(400, self.service.remove_connection_from_group, group, client.id)
            self.refused(400, self.service.add_user_to_group, group, "ann")
            self.refused(400, self.service.remove_user_from_group, group, "ann")
        hub = self.service_client(hub="a hub")
        self.refused(400, hub.remove_connection_from_all_groups, client.id)
        self.refused(400, hub.remove_user_from_all_groups, "ann")


@both
class Permissions:
    def test_sending_to_one_group(self):
        client = self.join(roles=[])
        self.assertFalse(self.service.has_permission("sendToGroup", client.id, target_name="g"))
        self.service.grant_permission("sendToGroup", client.id, target_name="g")
        self.service.grant_permission("sendToGroup", client.id, target_name="g")
        self.assertTrue(self.service.has_permission("sendToGroup", client.id, target_name="g"))
        for absent in ("h", "G", "g "):
            self.assertFalse(self.service.has_permission("sendToGroup", client.id, target_name=absent))
        self.assertFalse(self.service.has_permission("joinLeaveGroup", client.id, target_name="g"))
        client.sdk.send_to_group("g", "x", TEXT)
        self.send_fails("Forbidden", client.sdk.send_to_group, "h", "x", TEXT)
        self.service.revoke_permission("sendToGroup", client.id, target_name="g")
        self.service.revoke_permission("sendToGroup", client.id, target_name="g")
        self.assertFalse(self.service.has_permission("sendToGroup", client.id, target_name="g"))
        self.send_fails("Forbidden", client.sdk.send_to_group, "g", "x", TEXT)

    def test_joining_one_group(self):
        client = self.join(roles=[])
        self.send_fails("Forbidden", client.sdk.join_group, "g")
        self.service.grant_permission("joinLeaveGroup", client.id, target_name="g")
        client.sdk.join_group("g")
        self.service.send_to_group("g", "member", content_type=TEXT_TYPE)
        # Who may not join any more is a member all the same, and may not leave.
        self.service.revoke_permission("joinLeaveGroup", client.id, target_name="g")
        self.send_fails("Forbidden", client.sdk.leave_group, "g")
        self.service.send_to_group("g", "still", content_type=TEXT_TYPE)
        self.got((client, Message("member", group="g"), Message("still", group="g")))

    def test_a_star_is_a_name(self):
        client = self.join(roles=[])
        self.service.grant_permission("sendToGroup", client.id, target_name="*")
        self.send_fails("Forbidden", client.sdk.send_to_group, "g", "x", TEXT)
        client.sdk.send_to_group("*", "x", TEXT)

    def test_all_groups(self):
        client = self.join(roles=[])
        self.service.grant_permission("sendToGroup", client.id)
        self.assertTrue(self.service.has_permission("sendToGroup", client.id))
        self.assertTrue(self.service.has_permission("sendToGroup", client.id, target_name="any"))
        client.sdk.send_to_group("any", "x", TEXT)
        self.service.revoke_permission("sendToGroup", client.id)
        self.assertFalse(self.service.has_permission("sendToGroup", client.id))
        self.send_fails("Forbidden", client.sdk.send_to_group, "any", "x", TEXT)

    def test_what_is_revoked_by_name_stands_above_roles(self):
        client = self.join(roles=["webpubsub.sendToGroup", "webpubsub.sendToGroups.g*"])
        self.service.revoke_permission("sendToGroup", client.id, target_name="g1")
        self.send_fails("Forbidden", client.sdk.send_to_group, "g1", "x", TEXT)
        client.sdk.send_to_group("g2", "x", TEXT)
        self.service.grant_permission("sendToGroup", client.id, target_name="g1")
        client.sdk.send_to_group("g1", "x", TEXT)

    def test_other_connections_of_the_user_gain_nothing(self):
        first, second = self.join("ann", roles=[]), self.join("ann", roles=[])
        self.service.grant_permission("sendToGroup", first.id, target_name="g")
        self.assertFalse(self.service.has_permission("sendToGroup", second.id, target_name="g"))

    def test_an_absent_connection(self):
        for permission in ("sendToGroup", "joinLeaveGroup"):
            error = self.refused(404, self.service.grant_permission, permission, "absent", target_name="g")
            self.assertIsInstance(error, ResourceNotFoundError)
            self.service.revoke_permission(permission, "absent", target_name="g")
            self.assertFalse(self.service.has_permission(permission, "absent", target_name="g"))

    def test_permissions_that_do_not_exist(self):
        client = self.join()
        for call in (self.service.grant_permission, self.service.revoke_permission, self.service.has_permission):
            self.refused(400, call, "conquer", client.id, target_name="g")


@both
class Lists:
    def filled(self, count=5):
        """Returns the ids of the members of a group that has so many, in the order of lists."""
        clients = [self.join(f"user {number}", groups=["g"]) for number in range(count)]
        found = self.ids(self.service.items("list_connections", group="g"))
        self.assertCountEqual(found, [client.id for client in clients])
        return found

    def ids(self, members):
        return [member.connection_id for member in members]

    def test_an_empty_group(self):
        self.assertEqual(self.service.items("list_connections", group="g"), [])
        self.assertEqual(self.service.pages("list_connections", group="g"), [[]])

    def test_who_is_there(self):
        ann, anonymous, outside = self.join("ann", groups=["g"]), self.join(groups=["g"]), self.join(groups=["h"])
        members = {member.connection_id: member.user_id for member in self.service.items("list_connections", group="g")}
        self.assertEqual(members, {ann.id: "ann", anonymous.id: None})
        ann.close()
        self.is_gone(ann.id)
        self.assertEqual(self.ids(self.service.items("list_connections", group="g")), [anonymous.id])
        self.assertEqual(self.ids(self.service.items("list_connections", group="h")), [outside.id])

    def test_pages(self):
        expected = self.filled()
        for size, pages in ((1, [1, 1, 1, 1, 1]), (2, [2, 2, 1]), (5, [5]), (200, [5])):
            found = self.service.pages("list_connections", group="g", maxpagesize=size)
            self.assertEqual([len(page) for page in found], pages)
            self.assertEqual(self.ids(member for page in found for member in page), expected)
            self.assertEqual(self.ids(self.service.items("list_connections", group="g", maxpagesize=size)), expected)

    def test_no_more_than_asked(self):
        expected = self.filled()
        for top in (1, 3, 5, 99):
            found = self.service.items("list_connections", group="g", top=top)
            self.assertEqual(self.ids(found), expected[:top])
            pages = self.service.pages("list_connections", group="g", top=top, maxpagesize=2)
            self.assertEqual(self.ids(member for page in pages for member in page), expected[:top])
            self.assertLessEqual(max(len(page) for page in pages), 2)

    def test_going_on_later(self):
        expected = self.filled()
        path = f"/api/hubs/{self.hub}/groups/g/connections"
        response = self.service.send_request(HttpRequest("GET", path, params={"maxpagesize": 2, "top": 4, "api-version": "2024-12-01"}))
        self.assertEqual(response.status_code, 200)
        link = response.json()["nextLink"]
        parts = urlsplit(link)
        self.assertEqual((parts.scheme, parts.netloc), ("http", self.stage.service.address))
        self.assertIn("api-version=2024-12-01", parts.query)
        pages = self.service.pages("list_connections", continuation_token=link, group="g")
        self.assertEqual([self.ids(page) for page in pages], [expected[2:4]])

    def test_a_member_that_left_in_between(self):
        members = self.filled()
        path = f"/api/hubs/{self.hub}/groups/g/connections"
        link = self.service.send_request(HttpRequest("GET", path, params={"maxpagesize": 2})).json()["nextLink"]
        for gone in (members[1], members[2]):
            self.service.remove_connection_from_group("g", gone)
        pages = self.service.pages("list_connections", continuation_token=link, group="g")
        self.assertEqual(self.ids(member for page in pages for member in page), members[3:])

    def test_a_group_with_an_uncommon_name(self):
        group = "a/b +%&?=ü"
        clients = [self.join(groups=[group]) for _ in range(3)]
        found = self.service.pages("list_connections", group=group, maxpagesize=2)
        self.assertCountEqual(self.ids(member for page in found for member in page), [client.id for client in clients])

    def test_what_is_refused(self):
        for options in (
            {"group": "g", "maxpagesize": 0},
            {"group": "g", "maxpagesize": 201},
            {"group": "g", "top": 0},
            {"group": "g", "top": -1},
            {"group": " "},
            {"group": "g", "params": {"continuationToken": "made up"}},
            {"group": "g", "params": {"continuationToken": ""}},
        ):
            with self.subTest(**options), self.assertRaises(HttpResponseError) as caught:
                self.service.items("list_connections", **options)
            self.assertEqual(caught.exception.status_code, 400)
