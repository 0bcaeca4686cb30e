"""What the tests need: the service, an upstream, a proxy that cuts connections, and the SDKs in both kinds."""
