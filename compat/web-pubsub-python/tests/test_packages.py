"""What is tested are the packages that were named, and nothing stands in for them."""

import base64
import hashlib
import importlib.metadata
import unittest

import azure.messaging.webpubsubclient
import azure.messaging.webpubsubservice


class Packages(unittest.TestCase):
    def test_their_versions(self):
        self.assertEqual(azure.messaging.webpubsubservice.__version__, "1.3.0")
        self.assertEqual(azure.messaging.webpubsubclient.__version__, "1.1.0")

    def test_their_files_are_as_they_were_published(self):
        for name in ("azure-messaging-webpubsubservice", "azure-messaging-webpubsubclient"):
            files = [file for file in importlib.metadata.files(name) if file.suffix == ".py"]
            self.assertLess(5, len(files))
            for file in files:
                with self.subTest(file=str(file)):
                    self.assertTrue(file.hash, "without a hash")
                    self.assertEqual(sha256(file.read_binary()), file.hash.value)


def sha256(data: bytes) -> str:
    """Returns the hash as a package's list of files writes it."""
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
