"""A Storage SCP of pynetdicom that answers every C-STORE with one status, and ends when its standard input does.

    storage_scp.py PORT STATUS        (such as 0x0111)
"""

import sys

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, StoragePresentationContexts, evt

port, status = int(sys.argv[1]), int(sys.argv[2], 0)
server = AE(ae_title="PACS")
for context in StoragePresentationContexts:
    server.add_supported_context(context.abstract_syntax, ALL_TRANSFER_SYNTAXES)
server.add_supported_context("1.2.840.10008.5.1.4.1.1.66.4", ALL_TRANSFER_SYNTAXES)
server.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda event: status)])
print("listening", flush=True)
sys.stdin.read()
server.shutdown()
