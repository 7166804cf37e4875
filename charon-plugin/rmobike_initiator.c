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

#include "rmobike_initiator.h"

#include <daemon.h>

typedef struct private_rmobike_initiator_t private_rmobike_initiator_t;

/**
 * Private data of an rmobike_initiator_t object.
 */
struct private_rmobike_initiator_t {

	/**
	 * Public interface
	 */
	rmobike_initiator_t public;

	/**
	 * Socket, for commands and events
	 */
	rmobike_control_t *control;

	/**
	 * Known peers
	 */
	rmobike_peers_t *peers;

	/**
	 * What to accept
	 */
	rmobike_policy_t *policy;

	/**
	 * Starts updates
	 */
	rmobike_update_t *update;
};

/**
 * Parse an optional address of a request
 */
static bool optional_address(vici_message_t *request, char *key, host_t **host)
{
	char *address;

	address = request->get_str(request, NULL, key);
	*host = rmobike_parse_address(address);
	return !address || *host;
}

/**
 * Check an update that was asked for, and start it
 */
static vici_message_t *start_update(private_rmobike_initiator_t *this,
							uint32_t id, host_t *local, host_t *remote,
							char *token)
{
	rmobike_peer_t *peer;
	uint32_t serial;

	peer = this->peers->lock(this->peers, id, FALSE);
	if (!peer)
	{
		return this->control->refuse(this->control, "unknown-ike-id",
							"no IKEv2 SA with ike-id %u", id);
	}
	serial = peer->serial;
	id = !peer->up ? 0 : !peer->initiator ? 1 : !peer->mobike ? 2 : 3;
	this->peers->unlock(this->peers);
	switch (id)
	{
		case 0:
			return this->control->refuse(this->control, "not-established",
							"the IKE_SA is not established");
		case 1:
			return this->control->refuse(this->control, "not-initiator",
							"only the initiator of an IKE_SA may update its "
							"addresses: use switch-address");
		case 2:
			return this->control->refuse(this->control, "no-mobike",
							"the peer does not support MOBIKE");
		default:
			break;
	}
	if (local && !rmobike_is_local(local))
	{
		return this->control->refuse(this->control, "not-local",
							"%H is not one of our addresses", local);
	}
	if (local && remote &&
		local->get_family(local) != remote->get_family(remote))
	{
		return this->control->refuse(this->control, "bad-address",
							"%H and %H are of different families", local,
							remote);
	}
	this->update->schedule(this->update, serial, local, remote, token,
						   "command");
	return this->control->done(this->control, NULL);
}

CALLBACK(update_addresses, vici_message_t*,
	private_rmobike_initiator_t *this, char *name, u_int client,
	vici_message_t *request)
{
	host_t *local = NULL, *remote = NULL;
	char token[RMOBIKE_TOKEN_SIZE];
	vici_message_t *response;
	uint32_t id;

	if (!rmobike_parse_number(request->get_str(request, NULL, "ike-id"), 1,
							  UINT32_MAX, &id) ||
		!rmobike_parse_token(request->get_str(request, NULL, "token"), token))
	{
		return this->control->refuse(this->control, "bad-request",
							"ike-id has to be a number, token short");
	}
	if (!optional_address(request, "local", &local) ||
		!optional_address(request, "remote", &remote) ||
		(!local && !remote))
	{
		response = this->control->refuse(this->control, "bad-address",
							"local and remote have to be unicast IP addresses, "
							"at least one is needed");
	}
	else
	{
		response = start_update(this, id, local, remote, token);
	}
	DESTROY_IF(local);
	DESTROY_IF(remote);
	return response;
}

/**
 * Read the address in a SWITCH_TO_IP_ADDRESS notify
 */
static host_t *read_target(notify_payload_t *notify)
{
	chunk_t data = notify->get_notification_data(notify);
	host_t *host;

	if (data.len != 4 && data.len != 16)
	{
		return NULL;
	}
	host = host_create_from_chunk(data.len == 4 ? AF_INET : AF_INET6, data, 0);
	if (host && !rmobike_is_unicast(host))
	{
		host->destroy(host);
		host = NULL;
	}
	return host;
}

/**
 * Decide about a switch the peer asks us for, return the reason to refuse it
 */
static char *decide(private_rmobike_initiator_t *this, ike_sa_t *ike_sa,
					uint32_t serial, host_t *target)
{
	enumerator_t *enumerator;
	rmobike_peer_t *peer;
	host_t *address, *other;
	bool known = FALSE, calm = FALSE;

	other = ike_sa->get_other_host(ike_sa);
	if (other->ip_equals(other, target))
	{
		return "already-there";
	}
	enumerator = ike_sa->create_peer_address_enumerator(ike_sa);
	while (!known && enumerator->enumerate(enumerator, &address))
	{
		known = address->ip_equals(address, target);
	}
	enumerator->destroy(enumerator);
	if (!this->policy->accepts(this->policy, target, known))
	{
		return "address-not-allowed";
	}
	peer = this->peers->lock_serial(this->peers, serial);
	if (peer)
	{
		calm = this->policy->take(this->policy, &peer->bucket.level,
								  &peer->bucket.filled);
		this->peers->unlock(this->peers);
	}
	return calm ? NULL : "too-many";
}

/**
 * Raise an event about a switch the peer asked us for
 */
static void raise_received(private_rmobike_initiator_t *this, ike_sa_t *ike_sa,
						   message_t *message, host_t *target, char *refused)
{
	vici_builder_t *builder;

	builder = this->control->event(this->control,
								   ike_sa->get_unique_id(ike_sa));
	builder->add_kv(builder, "message-id", "%u",
					message->get_message_id(message));
	if (target)
	{
		builder->add_kv(builder, "address", "%H", target);
	}
	if (refused)
	{
		DBG1(DBG_IKE, "refusing to switch IKE_SA %s[%u]: %s",
			 ike_sa->get_name(ike_sa), ike_sa->get_unique_id(ike_sa), refused);
		builder->add_kv(builder, "reason", "%s", refused);
	}
	else
	{
		DBG1(DBG_IKE, "peer of IKE_SA %s[%u] asks to switch to %H",
			 ike_sa->get_name(ike_sa), ike_sa->get_unique_id(ike_sa), target);
	}
	this->control->raise(this->control,
					refused ? "switch-refused" : "switch-received", 0, builder);
}

METHOD(rmobike_initiator_t, request, void,
	private_rmobike_initiator_t *this, ike_sa_t *ike_sa, message_t *message)
{
	char token[RMOBIKE_TOKEN_SIZE] = "", *refused;
	notify_payload_t *notify;
	rmobike_peer_t *peer;
	uint32_t serial;
	host_t *target;

	notify = message->get_notify(message,
								 this->policy->get_notify_type(this->policy));
	if (!notify)
	{
		return;
	}
	peer = this->peers->lock(this->peers, ike_sa->get_unique_id(ike_sa), FALSE);
	if (!peer || !peer->up || !peer->initiator || !peer->own_r)
	{	/* as responder nothing but the empty response is allowed */
		refused = !peer || !peer->up ? "not-established" :
				  !peer->initiator ? "not-initiator" : "not-announced";
		if (peer)
		{
			this->peers->unlock(this->peers);
		}
		raise_received(this, ike_sa, message, NULL, refused);
		return;
	}
	serial = peer->serial;
	this->peers->unlock(this->peers);

	target = read_target(notify);
	if (!target)
	{
		raise_received(this, ike_sa, message, NULL, "malformed");
		this->update->check_liveness(this->update, serial);
		return;
	}
	refused = decide(this, ike_sa, serial, target);
	raise_received(this, ike_sa, message, target, refused);
	if (refused)
	{
		this->update->check_liveness(this->update, serial);
	}
	else
	{
		this->update->schedule(this->update, serial, NULL, target, token,
							   "switch");
	}
	target->destroy(target);
}

METHOD(rmobike_initiator_t, destroy, void,
	private_rmobike_initiator_t *this)
{
	free(this);
}

/*
 * Described in header
 */
rmobike_initiator_t *rmobike_initiator_create(rmobike_control_t *control,
							rmobike_peers_t *peers, rmobike_policy_t *policy,
							rmobike_update_t *update)
{
	private_rmobike_initiator_t *this;

	INIT(this,
		.public = {
			.request = _request,
			.destroy = _destroy,
		},
		.control = control,
		.peers = peers,
		.policy = policy,
		.update = update,
	);

	control->add_event(control, "switch-received");
	control->add_event(control, "switch-refused");
	control->add_command(control, "update-addresses", update_addresses, this);

	return &this->public;
}
