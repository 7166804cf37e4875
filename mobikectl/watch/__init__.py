"""What somebody who watches sees: a cluster and a sidecar as rows, for `mobikectl top` and for the web page."""
