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

#include "rmobike_listener.h"

#include <daemon.h>

#include "rmobike_follow.h"
#include "rmobike_import.h"
#include "rmobike_swap.h"

typedef struct private_rmobike_listener_t private_rmobike_listener_t;

/**
 * Private data of an rmobike_listener_t object.
 */
struct private_rmobike_listener_t {

	/**
	 * Public interface
	 */
	rmobike_listener_t public;

	/**
	 * Socket, for commands and events
	 */
	rmobike_control_t *control;

	/**
	 * Known peers
	 */
	rmobike_peers_t *peers;

	/**
	 * Settings
	 */
	rmobike_policy_t *policy;

	/**
	 * Asks peers to switch
	 */
	rmobike_responder_t *responder;

	/**
	 * Follows switches
	 */
	rmobike_initiator_t *initiator;

	/**
	 * Reports notifies
	 */
	rmobike_watch_t *watch;

	/**
	 * Adds notifies
	 */
	rmobike_rules_t *rules;

	/**
	 * IKE_SAs that are not served at the moment
	 */
	rmobike_freeze_t *freeze;

	/**
	 * Peers that may be ahead
	 */
	rmobike_ahead_t *ahead;
};

/**
 * Get the peer of an IKE_SA, locked
 */
static rmobike_peer_t *lock_peer(private_rmobike_listener_t *this,
								 ike_sa_t *ike_sa)
{
	return this->peers->lock(this->peers, ike_sa->get_unique_id(ike_sa), TRUE);
}

/**
 * Put 'R' into the MOBIKE_SUPPORTED notify of a request to send
 */
static void announce(private_rmobike_listener_t *this, ike_sa_t *ike_sa,
					 message_t *message)
{
	notify_payload_t *notify;
	rmobike_peer_t *peer;

	notify = message->get_notify(message, MOBIKE_SUPPORTED);
	if (notify && this->policy->announces(this->policy))
	{
		notify->set_notification_data(notify, chunk_from_chars('R'));
		peer = lock_peer(this, ike_sa);
		peer->own_r = TRUE;
		this->peers->unlock(this->peers);
	}
}

/**
 * Remember the 'R' in the MOBIKE_SUPPORTED notify of a received request.  The
 * peer is not authenticated yet, so nothing is published here.
 */
static void remember(private_rmobike_listener_t *this, ike_sa_t *ike_sa,
					 message_t *message)
{
	notify_payload_t *notify;
	rmobike_peer_t *peer;

	notify = message->get_notify(message, MOBIKE_SUPPORTED);
	if (notify && chunk_equals(notify->get_notification_data(notify),
							   chunk_from_chars('R')))
	{
		peer = lock_peer(this, ike_sa);
		peer->peer_r = TRUE;
		this->peers->unlock(this->peers);
	}
}

/**
 * Remember that a client was redirected to us
 */
static void remember_redirected(private_rmobike_listener_t *this,
								ike_sa_t *ike_sa, message_t *message)
{
	rmobike_peer_t *peer;

	if (message->get_notify(message, REDIRECTED_FROM))
	{
		peer = lock_peer(this, ike_sa);
		peer->redirected = TRUE;
		this->peers->unlock(this->peers);
	}
}

METHOD(listener_t, message, bool,
	private_rmobike_listener_t *this, ike_sa_t *ike_sa, message_t *message,
	bool incoming, bool plain)
{
	if (!ike_sa || ike_sa->get_version(ike_sa) != IKEV2)
	{
		return TRUE;
	}
	if (!plain)
	{
		if (incoming)
		{
			this->ahead->received(this->ahead, ike_sa, message);
		}
		return TRUE;
	}
	if (message->get_request(message))
	{
		switch (message->get_exchange_type(message))
		{
			case IKE_SA_INIT:
				if (incoming)
				{
					remember_redirected(this, ike_sa, message);
				}
				break;
			case IKE_AUTH:
				if (incoming)
				{
					remember(this, ike_sa, message);
				}
				else
				{
					announce(this, ike_sa, message);
				}
				break;
			case INFORMATIONAL:
				if (incoming)
				{
					rmobike_swap_request(ike_sa, message);
					this->initiator->request(this->initiator, ike_sa, message);
				}
				break;
			default:
				break;
		}
	}
	if (incoming)
	{
		this->watch->received(this->watch, ike_sa, message);
		if (message->get_request(message))
		{
			this->rules->request(this->rules, ike_sa, message);
		}
		else if (message->get_exchange_type(message) == IKE_AUTH)
		{
			rmobike_follow_redirect(ike_sa, message);
		}
	}
	else
	{
		this->rules->outgoing(this->rules, ike_sa, message);
	}
	return TRUE;
}

/**
 * Add what is known about a peer to a message
 */
static void describe(vici_builder_t *builder, rmobike_peer_t *peer)
{
	builder->add_kv(builder, "ike-id", "%u", peer->id);
	builder->add_kv(builder, "initiator", "%s", peer->initiator ? "yes" : "no");
	builder->add_kv(builder, "mobike", "%s", peer->mobike ? "yes" : "no");
	builder->add_kv(builder, "peer-r", "%s", peer->peer_r ? "yes" : "no");
	builder->add_kv(builder, "own-r", "%s", peer->own_r ? "yes" : "no");
	if (peer->pending.generation)
	{
		builder->add_kv(builder, "pending", "%s", peer->pending.token);
	}
}

METHOD(listener_t, ike_updown, bool,
	private_rmobike_listener_t *this, ike_sa_t *ike_sa, bool up)
{
	vici_builder_t *builder;
	rmobike_peer_t *peer;

	if (!up || ike_sa->get_version(ike_sa) != IKEV2)
	{
		return TRUE;
	}
	builder = this->control->builder(this->control);
	peer = lock_peer(this, ike_sa);
	peer->up = TRUE;
	peer->initiator = ike_sa->has_condition(ike_sa, COND_ORIGINAL_INITIATOR);
	peer->mobike = ike_sa->supports_extension(ike_sa, EXT_MOBIKE);
	describe(builder, peer);
	this->peers->unlock(this->peers);
	builder->add_kv(builder, "redirect", "%s",
			ike_sa->supports_extension(ike_sa, EXT_IKE_REDIRECTION) ?
			"yes" : "no");
	builder->add_kv(builder, "nat-local", "%s",
			ike_sa->has_condition(ike_sa, COND_NAT_HERE) ? "yes" : "no");
	builder->add_kv(builder, "nat-remote", "%s",
			ike_sa->has_condition(ike_sa, COND_NAT_THERE) ? "yes" : "no");
	this->control->raise(this->control, "capability", 0, builder);
	return TRUE;
}

METHOD(listener_t, ike_rekey, bool,
	private_rmobike_listener_t *this, ike_sa_t *old, ike_sa_t *new)
{
	this->peers->rekey(this->peers, old->get_unique_id(old),
					   new->get_unique_id(new));
	this->responder->rekeyed(this->responder, new);
	return TRUE;
}

METHOD(listener_t, ike_update, bool,
	private_rmobike_listener_t *this, ike_sa_t *ike_sa, host_t *local,
	host_t *remote)
{
	this->responder->updated(this->responder, ike_sa, local, remote);
	return TRUE;
}

METHOD(listener_t, ike_state_change, bool,
	private_rmobike_listener_t *this, ike_sa_t *ike_sa, ike_sa_state_t state)
{
	rmobike_import_begins(ike_sa, state);
	this->freeze->changes(this->freeze, ike_sa, state);
	if (state == IKE_DESTROYING)
	{
		this->responder->gone(this->responder, ike_sa);
		this->freeze->gone(this->freeze, ike_sa);
		this->ahead->gone(this->ahead, ike_sa);
	}
	return TRUE;
}

METHOD(listener_t, child_state_change, bool,
	private_rmobike_listener_t *this, ike_sa_t *ike_sa, child_sa_t *child_sa,
	child_sa_state_t state)
{
	rmobike_swap_state(child_sa, state);
	return TRUE;
}

CALLBACK(list_peers, vici_message_t*,
	private_rmobike_listener_t *this, char *name, u_int client,
	vici_message_t *request)
{
	vici_builder_t *builder;
	rmobike_peer_t *peer;
	uint32_t *ids;
	u_int i, count;

	count = this->peers->list(this->peers, &ids);
	for (i = 0; i < count; i++)
	{
		builder = this->control->builder(this->control);
		peer = this->peers->lock(this->peers, ids[i], FALSE);
		if (peer)
		{
			if (peer->up)
			{
				describe(builder, peer);
				this->peers->unlock(this->peers);
				this->control->raise(this->control, "list-peer", client,
									 builder);
				continue;
			}
			this->peers->unlock(this->peers);
		}
		builder->destroy(builder);
	}
	free(ids);
	return this->control->done(this->control, NULL);
}

/**
 * Take over what is known about the peer of an IKE_SA that was not
 * established here but came from another node
 */
CALLBACK(set_peer, vici_message_t*,
	private_rmobike_listener_t *this, char *name, u_int client,
	vici_message_t *request)
{
	rmobike_peer_t *peer;
	ike_sa_t *ike_sa = NULL;
	uint32_t id;
	bool good;

	if (rmobike_parse_number(request->get_str(request, NULL, "ike-id"), 1,
							 UINT32_MAX, &id))
	{
		ike_sa = charon->ike_sa_manager->checkout_by_id(
										charon->ike_sa_manager, id);
	}
	if (!ike_sa)
	{
		return this->control->refuse(this->control, "unknown-ike-id",
									 "there is no IKE_SA with this ike-id");
	}
	good = ike_sa->get_version(ike_sa) == IKEV2;
	if (good)
	{
		peer = lock_peer(this, ike_sa);
		peer->up = TRUE;
		peer->initiator = ike_sa->has_condition(ike_sa,
												COND_ORIGINAL_INITIATOR);
		peer->mobike = ike_sa->supports_extension(ike_sa, EXT_MOBIKE);
		peer->peer_r = request->get_bool(request, peer->peer_r, "peer-r");
		peer->own_r = request->get_bool(request, peer->own_r, "own-r");
		this->peers->unlock(this->peers);
	}
	charon->ike_sa_manager->checkin(charon->ike_sa_manager, ike_sa);
	if (!good)
	{
		return this->control->refuse(this->control, "unknown-ike-id",
									 "this is not an IKEv2 SA");
	}
	return this->control->done(this->control, NULL);
}

METHOD(rmobike_listener_t, destroy, void,
	private_rmobike_listener_t *this)
{
	free(this);
}

/*
 * Described in header
 */
rmobike_listener_t *rmobike_listener_create(rmobike_control_t *control,
							rmobike_peers_t *peers, rmobike_policy_t *policy,
							rmobike_responder_t *responder,
							rmobike_initiator_t *initiator,
							rmobike_watch_t *watch, rmobike_rules_t *rules,
							rmobike_freeze_t *freeze, rmobike_ahead_t *ahead)
{
	private_rmobike_listener_t *this;

	INIT(this,
		.public = {
			.listener = {
				.message = _message,
				.ike_updown = _ike_updown,
				.ike_rekey = _ike_rekey,
				.ike_update = _ike_update,
				.ike_state_change = _ike_state_change,
				.child_state_change = _child_state_change,
			},
			.destroy = _destroy,
		},
		.control = control,
		.peers = peers,
		.policy = policy,
		.responder = responder,
		.initiator = initiator,
		.watch = watch,
		.rules = rules,
		.freeze = freeze,
		.ahead = ahead,
	);

	control->add_event(control, "capability");
	control->add_event(control, "list-peer");
	control->add_command(control, "list-peers", list_peers, this);
	control->add_command(control, "set-peer", set_peer, this);

	return &this->public;
}
