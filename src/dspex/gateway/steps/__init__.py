"""The steps of a call, a file each; `gateway.service` has their order."""
