/*
 * Copyright (C) 2026 The mobikectl authors
 *
 * This program is free software; you can redistribute it and/or modify it
 * under the terms of the GNU General Public License as published by the
 * Free Software Foundation; either version 2 of the License, or (at your
 * option) any later version.  See <http://www.fsf.org/copyleft/gpl.txt>.
 *
 * This program is distributed in the hope that it will be useful, but
 * WITHOUT ANY WARRANTY; without even the implied warranty of MERCHANTABILITY
 * or FITNESS FOR A PARTICULAR PURPOSE.  See the GNU General Public License
 * for more details.
 */

#include "rmobike_import.h"

#include <daemon.h>
#include <config/peer_cfg.h>

/**
 * Interval of dead peer detection of the placeholder, in seconds: a job that
 * finds it comes again in ten years.  Zero would not do: then it sends a request.
 */
#define NEVER (10 * 365 * 24 * 3600)

/**
 * Create the configuration of an IKE_SA that has none yet
 */
static peer_cfg_t *create_placeholder()
{
	ike_cfg_create_t ike = {
		.version = IKEV2,
		.local = "%any",
		.local_port = IKEV2_UDP_PORT,
		.remote = "%any",
		.remote_port = IKEV2_UDP_PORT,
		.no_certreq = TRUE,
	};
	peer_cfg_create_t peer = {
		.cert_policy = CERT_NEVER_SEND,
		.unique = UNIQUE_NEVER,
		.keyingtries = 1,
		.dpd = NEVER,
	};

	return peer_cfg_create("(unnamed)", ike_cfg_create(&ike), &peer);
}

/*
 * Described in header
 */
void rmobike_import_begins(ike_sa_t *ike_sa, ike_sa_state_t state)
{
	peer_cfg_t *placeholder;

	/* whoever else begins an IKE_SA has found a configuration before */
	if (state == IKE_CONNECTING &&
		ike_sa->get_version(ike_sa) == IKEV2 &&
		!ike_sa->get_ike_cfg(ike_sa) && !ike_sa->get_peer_cfg(ike_sa))
	{
		placeholder = create_placeholder();
		ike_sa->set_peer_cfg(ike_sa, placeholder);
		placeholder->destroy(placeholder);
	}
}
