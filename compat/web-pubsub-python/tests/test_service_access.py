"""How the service client gets at the service: keys, connection strings, proxies, versions; and the tokens it makes for clients."""

import time

import jwt
from azure.core.credentials import AccessToken, AzureKeyCredential
from azure.core.exceptions import ClientAuthenticationError
from azure.core.rest import HttpRequest
from azure.messaging.webpubsubclient.models import OpenClientError

from lib.sdk import Aio
from lib.service import PRIMARY_KEY, SECONDARY_KEY
from lib.stage import JSON, TEXT, Message, both

EXPIRED_MINUTES = -10
"""Well beyond what clocks may differ."""


class SignedToken:
    """A token credential whose tokens are signed with the access key, for the URL that they are used at."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get_token(self, *scopes: str, **_) -> AccessToken:
        expires = int(time.time()) + 300
        return AccessToken(jwt.encode({"aud": self._url, "exp": expires}, PRIMARY_KEY, algorithm="HS256"), expires)


class SignedTokenAio(SignedToken):
    async def get_token(self, *scopes: str, **options) -> AccessToken:
        return super().get_token(*scopes, **options)

    async def close(self) -> None:
        pass


@both
class Access:
    def client_with(self, key: str, **options):
        return self.called(
            self.kind.service_class,
            endpoint=self.stage.service.url,
            hub=self.hub,
            credential=AzureKeyCredential(key),
            **options,
        )

    def test_an_endpoint_and_either_key(self):
        client = self.join()
        for key in (PRIMARY_KEY, SECONDARY_KEY):
            self.client_with(key).send_to_all(key, content_type="text/plain")
        self.got((client, Message(PRIMARY_KEY), Message(SECONDARY_KEY)))

    def test_a_key_that_is_replaced_while_in_use(self):
        credential = AzureKeyCredential("x" * 44)
        client = self.called(self.kind.service_class, endpoint=self.stage.service.url, hub=self.hub, credential=credential)
        self.refused(401, client.group_exists, "g")
        credential.update(SECONDARY_KEY)
        self.assertFalse(client.group_exists("g"))

    def test_connection_strings(self):
        host, port = self.stage.service.address.rsplit(":", 1)
        client = self.join()
        for number, text in enumerate(
            (
                f"Endpoint=http://{host};AccessKey={PRIMARY_KEY};Version=1.0;Port={port};",
                f"endpoint=http://{host}:{port};ACCESSKEY={SECONDARY_KEY}",
                f"Endpoint=http://localhost:{port};AccessKey={PRIMARY_KEY};Version=1.0;",
            )
        ):
            service = self.service_client(text)
            service.send_to_connection(client.id, [number])
            self.assertEqual(client.next(), Message([number], "json"))
            url = service.get_client_access_token()["url"]
            self.client(url).open().close()

    def test_a_wrong_key_opens_nothing(self):
        client = self.join("ann", groups=["g"])
        stranger = self.client_with("x" * 44)
        calls = [
            (stranger.send_to_all, "x"),
            (stranger.send_to_group, "g", "x"),
            (stranger.send_to_user, "ann", "x"),
            (stranger.send_to_connection, client.id, "x"),
            (stranger.connection_exists, client.id),
            (stranger.group_exists, "g"),
            (stranger.user_exists, "ann"),
            (stranger.close_connection, client.id),
            (stranger.close_all_connections,),
            (stranger.close_group_connections, "g"),
            (stranger.close_user_connections, "ann"),
            (stranger.add_connection_to_group, "h", client.id),
            (stranger.remove_connection_from_group, "g", client.id),
            (stranger.remove_connection_from_all_groups, client.id),
            (stranger.add_user_to_group, "h", "ann"),
            (stranger.remove_user_from_group, "g", "ann"),
            (stranger.remove_user_from_all_groups, "ann"),
            (stranger.grant_permission, "sendToGroup", client.id),
            (stranger.revoke_permission, "sendToGroup", client.id),
            (stranger.has_permission, "sendToGroup", client.id),
        ]
        for call, *arguments in calls:
            with self.subTest(call=arguments):
                error = self.refused(401, call, *arguments)
                self.assertIsInstance(error, ClientAuthenticationError)
        with self.assertRaises(ClientAuthenticationError):
            stranger.items("list_connections", group="g")
        # Nothing of it was done.
        self.assertEqual([member.connection_id for member in self.service.items("list_connections", group="g")], [client.id])
        self.assertFalse(self.service.group_exists("h"))
        self.assertTrue(self.service.has_permission("sendToGroup", client.id, target_name="g"))
        self.got((client,))

    def test_the_key_is_not_in_any_error_or_log(self):
        error = self.refused(401, self.client_with("y" * 44).send_to_all, "x")
        for secret in ("y" * 44, PRIMARY_KEY, SECONDARY_KEY):
            self.assertNotIn(secret, str(error))
            self.assertNotIn(secret, self.stage.service.log)
        self.assertNotIn("eyJ", self.stage.service.log, "a token is in the log")

    def test_a_reverse_proxy(self):
        proxy = self.proxy()
        client = self.join()
        endpoint = f"http://{proxy.address}"
        through = self.service_client(reverse_proxy_endpoint=endpoint)
        through.send_to_all("through", content_type="text/plain")
        self.got((client, Message("through")))
        self.assertLessEqual(1, proxy.cut(), "the proxy was not used")

    def test_a_user_of_the_credential(self):
        self.client_with(PRIMARY_KEY, user="an operator").send_to_all("x")

    def test_older_versions(self):
        client = self.join()
        for version in ("2021-10-01", "2022-11-01", "2023-07-01", "2024-01-01", "2024-12-01"):
            self.client_with(PRIMARY_KEY, api_version=version).send_to_all(version, content_type="text/plain")
            self.assertEqual(client.next(), Message(version))

    def test_hubs_are_apart_and_their_names_know_no_case(self):
        client = self.join()
        elsewhere = f"{self.hub}_elsewhere"
        self.stage.upstream.hub(elsewhere, {})
        other = self.service_client(hub=elsewhere)
        stranger = self.client(other.get_client_access_token()["url"]).open()
        self.service_client(hub=self.hub.upper()).send_to_all("for one hub", content_type="text/plain")
        other.send_to_all("for the other", content_type="text/plain")
        self.assertEqual(stranger.next(), Message("for the other"))
        self.got((client, Message("for one hub")))
        self.assertFalse(self.service.connection_exists(stranger.id))

    def test_bad_hub_names(self):
        for name in ("1st", "a hub", "h" * 129):
            with self.subTest(name=name):
                self.refused(400, self.service_client(hub=name).send_to_all, "x")

    def test_as_a_context_manager(self):
        service = self.service_client()
        with self.kind.inside(service.target) as entered:
            self.assertIs(entered, service.target)
            self.assertFalse(service.user_exists("nobody"))


@both
class Requests:
    """`send_request`: what the client has no method for."""

    def send(self, method: str, path: str, **options):
        return self.service.send_request(HttpRequest(method, f"/api/hubs/{self.hub}{path}", **options))

    def test_health_needs_nothing(self):
        response = self.service.send_request(HttpRequest("HEAD", "/api/health"))
        self.assertEqual(response.status_code, 200)

    def test_add_connections_to_groups_and_remove_them(self):
        ann, bob = self.join("ann"), self.join("bob")
        change = {"groups": ["a", "b"], "filter": "userId eq 'ann'"}
        response = self.send("POST", "/:addToGroups", json=change, params={"api-version": "2024-12-01"})
        self.assertEqual(response.status_code, 200)
        for group in ("a", "b"):
            self.service.send_to_group(group, group, content_type="text/plain")
        self.got((ann, Message("a", group="a"), Message("b", group="b")), (bob,))

        # Without a filter all are meant.
        self.assertEqual(self.send("POST", "/:addToGroups", json={"groups": ["c"]}).status_code, 200)
        self.service.send_to_group("c", "c", content_type="text/plain")
        self.got((ann, Message("c", group="c")), (bob, Message("c", group="c")))

        change = {"groups": ["a", "c"], "filter": f"connectionId in ('{ann.id}')"}
        self.assertEqual(self.send("POST", "/:removeFromGroups", json=change).status_code, 200)
        for group in ("a", "b", "c"):
            self.service.send_to_group(group, group, content_type="text/plain")
        self.got((ann, Message("b", group="b")), (bob, Message("c", group="c")))

    def test_changes_of_many_groups_that_are_refused(self):
        for action in ("/:addToGroups", "/:removeFromGroups"):
            for change in (
                {},
                {"groups": []},
                {"groups": "a"},
                {"groups": ["a", " "]},
                {"groups": ["g" * 1025]},
                {"groups": ["a"], "filter": "userId"},
                {"groups": ["a"], "filter": "userId eq"},
                {"groups": ["a"], "filter": 7},
            ):
                with self.subTest(action=action, change=change):
                    response = self.send("POST", action, json=change)
                    self.assertEqual(response.status_code, 400)
                    self.assertEqual(response.headers["x-ms-error-code"], "Error.BadRequest")
                    self.assertTrue(response.json()["message"])
        self.assertFalse(self.service.group_exists("a"))

    def test_answers_are_left_to_the_caller(self):
        self.assertEqual(self.send("POST", "/:send", content=b"{", headers={"Content-Type": "application/json"}).status_code, 400)
        response = self.send("POST", "/:send", content=b"x", headers={"Content-Type": "image/png"})
        self.assertEqual(response.status_code, 415)
        self.assertEqual(self.send("GET", "/nothing/here").status_code, 404)

    def test_metadata_goes_along(self):
        client = self.join()
        headers = {"Content-Type": "text/plain", "X-WebPubSub-Metadata-Trace": "7"}
        self.assertEqual(self.send("POST", "/:send", content=b"with metadata", headers=headers).status_code, 202)
        self.got((client, Message("with metadata")))


@both
class ClientTokens:
    def refused_client(self, url: str, status: int = 401) -> None:
        """Makes sure that a client does not get in, by this status."""
        with self.assertRaises(OpenClientError) as caught:
            self.client(url).sdk.open()
        self.assertIn(str(status), str(caught.exception))

    def test_the_urls(self):
        made = self.service.get_client_access_token()
        base = f"ws://{self.stage.service.address}/client/hubs/{self.hub}"
        self.assertEqual(made["baseUrl"], base)
        self.assertEqual(made["url"], f"{base}?access_token={made['token']}")
        for protocol, path in (("MQTT", "/clients/mqtt/hubs/"), ("SocketIO", "/clients/socketio/hubs/")):
            made = self.service.get_client_access_token(client_protocol=protocol)
            self.assertEqual(made["baseUrl"], f"ws://{self.stage.service.address}{path}{self.hub}")

    def test_a_user(self):
        client = self.client(self.url("ann"))
        client.sdk.open()
        connected = client.connections.next()
        self.assertEqual(connected.user_id, "ann")
        self.assertTrue(self.service.user_exists("ann"))
        self.assertEqual(self.upstream["connected"].next().user_id, "ann")

    def test_no_user(self):
        client = self.client(self.url())
        client.sdk.open()
        self.assertFalse(client.connections.next().user_id)
        self.assertIsNone(self.upstream["connected"].next().user_id)

    def test_users_with_uncommon_names(self):
        for user in ("a b", "ünïcödé/☃", "50%+'\"#?&", "u" * 500):
            with self.subTest(user=user):
                client = self.client(self.url(user))
                client.sdk.open()
                self.assertEqual(client.connections.next().user_id, user)
                self.assertTrue(self.service.user_exists(user))
                self.service.send_to_user(user, "hi", content_type="text/plain")
                self.assertEqual(client.next(), Message("hi"))

    def test_groups_need_no_role(self):
        client = self.join(roles=[], groups=["a", "b"])
        for group in ("a", "b", "c"):
            self.service.send_to_group(group, group, content_type="text/plain")
        self.got((client, Message("a", group="a"), Message("b", group="b")))
        self.send_fails("Forbidden", client.sdk.join_group, "c")

    def test_roles(self):
        permitted = {
            "webpubsub.joinLeaveGroup": ("joinLeaveGroup", ["a", "b", "news.eu"]),
            "webpubsub.joinLeaveGroup.a": ("joinLeaveGroup", ["a"]),
            "webpubsub.joinLeaveGroups.news.*": ("joinLeaveGroup", ["news.eu"]),
            "webpubsub.joinLeaveGroups.?": ("joinLeaveGroup", ["a", "b"]),
            "webpubsub.joinLeaveGroups.**": ("joinLeaveGroup", ["a", "b", "news.eu", "news.eu.west"]),
            "webpubsub.sendToGroup": ("sendToGroup", ["a", "b", "news.eu"]),
            "webpubsub.sendToGroup.b": ("sendToGroup", ["b"]),
            "webpubsub.sendToGroups.news.**": ("sendToGroup", ["news.eu", "news.eu.west"]),
        }
        every = ["a", "b", "news.eu", "news.eu.west"]
        for role, (permission, groups) in permitted.items():
            with self.subTest(role=role):
                client = self.join(roles=[role])
                for group in every:
                    is_there = group in groups or role in ("webpubsub.joinLeaveGroup", "webpubsub.sendToGroup")
                    for asked in ("joinLeaveGroup", "sendToGroup"):
                        self.assertEqual(
                            self.service.has_permission(asked, client.id, target_name=group),
                            is_there and asked == permission,
                            (asked, group),
                        )
                    if permission == "joinLeaveGroup":
                        attempt = (client.sdk.join_group, group)
                    else:
                        attempt = (client.sdk.send_to_group, group, "x", TEXT)
                    if is_there:
                        attempt[0](*attempt[1:])
                    else:
                        self.send_fails("Forbidden", *attempt)
                client.close()

    def test_expiry(self):
        self.refused_client(self.url(minutes_to_expire=EXPIRED_MINUTES))
        # Less than clocks may differ.
        self.client(self.url(minutes_to_expire=-1)).open().close()
        self.client(self.url(minutes_to_expire=24 * 60)).open().close()

    def test_headers_of_the_token(self):
        made = self.service.get_client_access_token(jwt_headers={"kid": "of no concern"})
        self.assertEqual(jwt.get_unverified_header(made["token"])["kid"], "of no concern")
        self.client(made["url"]).open().close()

    def test_tokens_that_are_not_for_this_door(self):
        elsewhere = self.service_client(hub=f"{self.hub}_elsewhere").get_client_access_token()["token"]
        mqtt = self.service.get_client_access_token(client_protocol="mqtt")["token"]
        base = self.service.get_client_access_token()["baseUrl"]
        for token in (elsewhere, mqtt, "not.a.token", "", jwt.encode({"aud": base, "exp": 1 << 33}, "x" * 44)):
            with self.subTest(token=token[:12]):
                self.refused_client(f"{base}?access_token={token}")
        self.refused_client(base)
        stranger = self.called(
            self.kind.service_class, self.stage.service.url, self.hub, AzureKeyCredential("x" * 44)
        )
        self.refused_client(stranger.get_client_access_token()["url"])

    def test_an_endpoint_without_a_scheme(self):
        service = self.called(self.kind.service_class, "nowhere", self.hub, AzureKeyCredential(PRIMARY_KEY))
        with self.assertRaises(ValueError):
            service.get_client_access_token()

    def made_by_the_service(self):
        """Returns a service client that has no key: it asks the service for client tokens."""
        credential = SignedTokenAio if self.kind_class is Aio else SignedToken
        url = f"{self.stage.service.url}/api/hubs/{self.hub}/:generateToken"
        return self.called(self.kind.service_class, self.stage.service.url, self.hub, credential(url))

    def test_tokens_that_the_service_makes(self):
        service = self.made_by_the_service()
        made = service.get_client_access_token(
            user_id="ann",
            roles=["webpubsub.sendToGroup.g", "webpubsub.joinLeaveGroup.g"],
            groups=["g", "h"],
            minutes_to_expire=5,
            enforce_https=False,
        )
        claims = jwt.decode(made["token"], options={"verify_signature": False})
        self.assertLess(abs(claims["exp"] - time.time() - 300), 60)
        client = self.client(made["url"])
        client.sdk.open()
        self.assertEqual(client.connections.next().user_id, "ann")
        client.sdk.send_to_group("g", {"n": 1}, JSON)
        self.service.send_to_group("h", "to h", content_type="text/plain")
        self.got((client, Message({"n": 1}, "json", "g", "ann"), Message("to h", group="h")))

    def test_a_token_of_the_service_with_nothing_asked(self):
        made = self.made_by_the_service().get_client_access_token(enforce_https=False)
        client = self.client(made["url"]).open()
        self.send_fails("Forbidden", client.sdk.join_group, "g")

    def test_a_token_of_the_service_for_another_door(self):
        service = self.made_by_the_service()
        made = service.get_client_access_token(client_protocol="MQTT", enforce_https=False)
        self.refused_client(f"{self.service.get_client_access_token()['baseUrl']}?access_token={made['token']}")

    def test_a_token_that_the_service_does_not_make(self):
        service = self.made_by_the_service()
        self.refused(400, service.get_client_access_token, minutes_to_expire=0, enforce_https=False)
