"""Request in, response out: authentication, authorization, admission, registry, watch cache, discovery."""
