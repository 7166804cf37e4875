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

#include "rmobike_move.h"

#include <daemon.h>
#include <sa/ikev2/tasks/ike_mobike.h>

#include "rmobike_standing.h"
#include "rmobike_task.h"

/**
 * How long an IKE_SA is frozen if nothing else is said, and the longest, in ms
 */
#define DEFAULT_TIMEOUT 5000
#define MAX_TIMEOUT 600000

typedef struct private_rmobike_move_t private_rmobike_move_t;

/**
 * Private data of an rmobike_move_t object.
 */
struct private_rmobike_move_t {

	/**
	 * Public interface
	 */
	rmobike_move_t public;

	/**
	 * Socket, for commands and events
	 */
	rmobike_control_t *control;

	/**
	 * Known peers
	 */
	rmobike_peers_t *peers;

	/**
	 * Frozen IKE_SAs
	 */
	rmobike_freeze_t *freeze;

	/**
	 * Peers that may be ahead
	 */
	rmobike_ahead_t *ahead;
};

/**
 * Check if the IKE_SA that an IKE_SA replaced still exists
 */
static bool is_settling(private_rmobike_move_t *this, uint32_t id)
{
	rmobike_peer_t *peer;
	bool settling = FALSE;

	peer = this->peers->lock(this->peers, id, FALSE);
	if (peer)
	{
		settling = peer->refs > 1;
		this->peers->unlock(this->peers);
	}
	return settling;
}

/**
 * Get what goes on with an IKE_SA, NULL if it is quiet
 */
static char *busy_with(private_rmobike_move_t *this, ike_sa_t *ike_sa)
{
	char *busy = rmobike_standing_busy(ike_sa);

	if (!busy && is_settling(this, ike_sa->get_unique_id(ike_sa)))
	{
		busy = "a rekeying of the IKE_SA is not over";
	}
	return busy;
}

/**
 * Create the response that tells how a checked out IKE_SA stands
 *
 * @param change		what was done, NULL if it was only looked at
 */
static vici_message_t *tell(private_rmobike_move_t *this, ike_sa_t *ike_sa,
							char *change)
{
	rmobike_standing_t standing;
	vici_builder_t *builder;

	builder = this->control->builder(this->control);
	standing = this->freeze->standing(this->freeze, ike_sa);
	rmobike_standing_describe(builder, ike_sa, standing,
							  busy_with(this, ike_sa));
	if (standing == STANDING_FROZEN)
	{
		builder->add_kv(builder, "thaws", "%s",
				this->freeze->is_lasting(this->freeze, ike_sa) ? "no" : "yes");
	}
	builder->add_kv(builder, "ahead", "%u",
					this->ahead->allowed(this->ahead, ike_sa));
	if (change)
	{
		builder->add_kv(builder, "changed", "%s", change);
	}
	return this->control->done(this->control, builder);
}

/**
 * What a command does with the checked out IKE_SA that is named in its request.
 *
 * @param ike_sa		IKE_SA, set to NULL if it was destroyed
 * @return				response
 */
typedef vici_message_t *(*command_t)(private_rmobike_move_t *this,
									 ike_sa_t **ike_sa, vici_message_t *request);

/**
 * Carry out a command
 */
static vici_message_t *with_ike_sa(private_rmobike_move_t *this,
								   vici_message_t *request, command_t command)
{
	vici_message_t *response;
	ike_sa_t *ike_sa;
	bool wrong;

	ike_sa = rmobike_standing_checkout(request, &wrong);
	if (wrong)
	{
		return this->control->refuse(this->control, "bad-request",
					"ike-id has to be a number, or spi-i and spi-r 16 "
					"hexadecimal digits each");
	}
	if (!ike_sa)
	{
		return this->control->refuse(this->control, "unknown-ike-sa",
									 "there is no such IKE_SA here");
	}
	response = command(this, &ike_sa, request);
	if (ike_sa)
	{
		charon->ike_sa_manager->checkin(charon->ike_sa_manager, ike_sa);
	}
	return response;
}

/**
 * Implements move-status
 */
static vici_message_t *do_status(private_rmobike_move_t *this,
								 ike_sa_t **ike_sa, vici_message_t *request)
{
	return tell(this, *ike_sa, NULL);
}

/**
 * Implements freeze
 */
static vici_message_t *do_freeze(private_rmobike_move_t *this,
								 ike_sa_t **ike_sa, vici_message_t *request)
{
	uint32_t id = (*ike_sa)->get_unique_id(*ike_sa), ms = DEFAULT_TIMEOUT;
	rmobike_standing_t standing;
	char *busy;

	if (request->get_str(request, NULL, "timeout-ms") &&
		!rmobike_parse_number(request->get_str(request, NULL, "timeout-ms"), 0,
							  MAX_TIMEOUT, &ms))
	{
		return this->control->refuse(this->control, "bad-request",
							"timeout-ms has to be 0 to %u", MAX_TIMEOUT);
	}
	standing = this->freeze->standing(this->freeze, *ike_sa);
	if (standing == STANDING_PASSIVE || standing == STANDING_OTHER)
	{
		return this->control->refuse(this->control, "not-active",
							"the IKE_SA is not served by this node");
	}
	if (standing == STANDING_FROZEN)
	{
		if (!this->freeze->is_lasting(this->freeze, *ike_sa))
		{
			this->freeze->freeze(this->freeze, *ike_sa, ms);
		}
		return tell(this, *ike_sa, "no");
	}
	busy = busy_with(this, *ike_sa);
	if (busy)
	{
		return this->control->refuse(this->control, "busy", "%s", busy);
	}
	DBG1(DBG_IKE, "freezing IKE_SA %s[%u]", (*ike_sa)->get_name(*ike_sa), id);
	this->freeze->freeze(this->freeze, *ike_sa, ms);
	return tell(this, *ike_sa, "yes");
}

/**
 * Parse how far ahead the peer's next request may be, 0 if nothing is said;
 * return the response if it is refused
 */
static vici_message_t *parse_ahead(private_rmobike_move_t *this,
								   vici_message_t *request, uint32_t *ahead)
{
	char *str = request->get_str(request, NULL, "ahead");

	*ahead = 0;
	if (str && !rmobike_parse_number(str, 0, RMOBIKE_AHEAD_MAX, ahead))
	{
		return this->control->refuse(this->control, "bad-request",
							"ahead has to be 0 to %u", RMOBIKE_AHEAD_MAX);
	}
	return NULL;
}

/**
 * Implements thaw
 */
static vici_message_t *do_thaw(private_rmobike_move_t *this,
							   ike_sa_t **ike_sa, vici_message_t *request)
{
	vici_message_t *refusal;
	uint32_t ahead;

	refusal = parse_ahead(this, request, &ahead);
	if (refusal)
	{
		return refusal;
	}
	switch (this->freeze->standing(this->freeze, *ike_sa))
	{
		case STANDING_ACTIVE:
			return tell(this, *ike_sa, "no");
		case STANDING_FROZEN:
			DBG1(DBG_IKE, "thawing IKE_SA %s[%u]", (*ike_sa)->get_name(*ike_sa),
				 (*ike_sa)->get_unique_id(*ike_sa));
			if (ahead)
			{
				this->ahead->allow(this->ahead, *ike_sa, ahead);
			}
			this->freeze->thaw(this->freeze, *ike_sa);
			return tell(this, *ike_sa, "yes");
		default:
			return this->control->refuse(this->control, "not-frozen",
							"the IKE_SA was not served by this node before");
	}
}

/**
 * Implements passivate
 */
static vici_message_t *do_passivate(private_rmobike_move_t *this,
									ike_sa_t **ike_sa, vici_message_t *request)
{
	bool lasting;

	if (this->freeze->standing(this->freeze, *ike_sa) != STANDING_FROZEN)
	{
		return this->control->refuse(this->control, "not-frozen",
							"the IKE_SA has to be frozen first");
	}
	lasting = this->freeze->is_lasting(this->freeze, *ike_sa);
	this->freeze->freeze(this->freeze, *ike_sa, 0);
	return tell(this, *ike_sa, lasting ? "no" : "yes");
}

/**
 * What an IKE_SA is to be activated with
 */
typedef struct {

	/** message IDs of the next requests, ours and the peer's, and if given */
	uint32_t initiator, responder;
	bool mids;

	/** our address, NULL to keep it */
	host_t *address;

	/** tell the peer our address */
	bool announce;

	/** how far ahead the peer's next request may be */
	uint32_t ahead;
} activation_t;

/**
 * Parse an activation, return the response if it is refused
 */
static vici_message_t *parse_activation(private_rmobike_move_t *this,
								vici_message_t *request, activation_t *act)
{
	char *initiator, *responder, *address;
	vici_message_t *refusal;

	initiator = request->get_str(request, NULL, "mid-initiator");
	responder = request->get_str(request, NULL, "mid-responder");
	act->mids = initiator || responder;
	if (act->mids &&
		(!rmobike_parse_number(initiator, 0, UINT32_MAX - 1, &act->initiator) ||
		 !rmobike_parse_number(responder, 0, UINT32_MAX - 1, &act->responder)))
	{
		return this->control->refuse(this->control, "bad-request",
					"mid-initiator and mid-responder have to be numbers, "
					"either both or none given");
	}
	act->announce = request->get_bool(request, FALSE, "announce");
	refusal = parse_ahead(this, request, &act->ahead);
	if (refusal)
	{
		return refusal;
	}
	address = request->get_str(request, NULL, "address");
	if (!address)
	{
		return NULL;
	}
	act->address = rmobike_parse_address(address);
	if (!act->address)
	{
		return this->control->refuse(this->control, "bad-address",
								"'%s' is not a unicast IP address", address);
	}
	return NULL;
}

/**
 * Check if an IKE_SA can be activated, return the response if not
 */
static vici_message_t *check_activation(private_rmobike_move_t *this,
				ike_sa_t *ike_sa, vici_message_t *request, activation_t *act)
{
	host_t *other = ike_sa->get_other_host(ike_sa), *me;
	char *busy;

	switch (this->freeze->standing(this->freeze, ike_sa))
	{
		case STANDING_PASSIVE:
			break;
		case STANDING_FROZEN:
			return this->control->refuse(this->control, "frozen",
					"the IKE_SA was served by this node before: thaw it");
		default:
			return this->control->refuse(this->control, "not-passive",
							"the IKE_SA is not a passive one");
	}
	busy = busy_with(this, ike_sa);
	if (busy)
	{
		return this->control->refuse(this->control, "busy", "%s", busy);
	}
	if (!rmobike_standing_has_children(ike_sa, request))
	{
		return this->control->refuse(this->control, "children-differ",
							"the CHILD_SAs are not those expected");
	}
	me = act->address ?: ike_sa->get_my_host(ike_sa);
	if (me->get_family(me) != other->get_family(other))
	{
		return this->control->refuse(this->control, "bad-address",
						"%H and %H are of different families", me, other);
	}
	if (!rmobike_is_local(me))
	{
		return this->control->refuse(this->control, "not-local",
							"%H is not one of our addresses", me);
	}
	if (act->announce &&
		ike_sa->has_condition(ike_sa, COND_ORIGINAL_INITIATOR))
	{
		return this->control->refuse(this->control, "not-responder",
							"this side initiated the IKE_SA: use "
							"update-addresses");
	}
	if (act->announce && !ike_sa->supports_extension(ike_sa, EXT_MOBIKE))
	{
		return this->control->refuse(this->control, "no-mobike",
							"the peer does not support MOBIKE");
	}
	return NULL;
}

/**
 * Know about the peer of an IKE_SA that was not established here
 */
static void know_peer(private_rmobike_move_t *this, ike_sa_t *ike_sa,
					  vici_message_t *request)
{
	rmobike_peer_t *peer;

	peer = this->peers->lock(this->peers, ike_sa->get_unique_id(ike_sa), TRUE);
	peer->peer_r = request->get_bool(request, peer->peer_r, "peer-r");
	peer->own_r = request->get_bool(request, peer->own_r, "own-r");
	this->peers->unlock(this->peers);
}

/**
 * Tell others in charon, and clients of vici, that an IKE_SA is up
 */
static void raise_up(ike_sa_t *ike_sa)
{
	enumerator_t *enumerator;
	child_sa_t *child_sa;

	charon->bus->ike_updown(charon->bus, ike_sa, TRUE);
	enumerator = ike_sa->create_child_sa_enumerator(ike_sa);
	while (enumerator->enumerate(enumerator, &child_sa))
	{
		charon->bus->child_updown(charon->bus, child_sa, TRUE);
	}
	enumerator->destroy(enumerator);
}

/**
 * Use an address of ours.  In this order, as where ESP is in userland the
 * CHILD_SAs have to be rekeyed for it, and the peer is to know the address
 * before that.
 */
static void take_address(ike_sa_t *ike_sa, host_t *address, bool announce)
{
	ike_mobike_t *mobike;
	host_t *me;

	if (announce)
	{
		mobike = ike_mobike_create(ike_sa, TRUE);
		mobike->addresses(mobike);
		rmobike_task_queue(ike_sa, &mobike->task);
	}
	if (address)
	{
		me = ike_sa->get_my_host(ike_sa);
		address->set_port(address, me->get_port(me));
		ike_sa->update_hosts(ike_sa, address, NULL, UPDATE_HOSTS_FORCE_ALL);
	}
}

/**
 * Implements activate
 */
static vici_message_t *do_activate(private_rmobike_move_t *this,
								   ike_sa_t **ike_sa, vici_message_t *request)
{
	vici_message_t *refusal;
	activation_t act = {};

	refusal = parse_activation(this, request, &act) ?:
			  check_activation(this, *ike_sa, request, &act);
	if (refusal)
	{
		DESTROY_IF(act.address);
		return refusal;
	}
	DBG1(DBG_IKE, "activating IKE_SA %s[%u]", (*ike_sa)->get_name(*ike_sa),
		 (*ike_sa)->get_unique_id(*ike_sa));
	if (act.mids)
	{
		(*ike_sa)->set_message_id(*ike_sa, TRUE, act.initiator);
		(*ike_sa)->set_message_id(*ike_sa, FALSE, act.responder);
	}
	this->ahead->allow(this->ahead, *ike_sa, act.ahead);
	know_peer(this, *ike_sa, request);
	this->freeze->activate(this->freeze, *ike_sa);
	take_address(*ike_sa, act.address, act.announce);
	raise_up(*ike_sa);
	DESTROY_IF(act.address);
	return tell(this, *ike_sa, "yes");
}

/**
 * Implements drop
 */
static vici_message_t *do_drop(private_rmobike_move_t *this,
							   ike_sa_t **ike_sa, vici_message_t *request)
{
	vici_builder_t *builder;
	bool up = FALSE;

	switch (this->freeze->standing(this->freeze, *ike_sa))
	{
		case STANDING_FROZEN:
			up = TRUE;
			break;
		case STANDING_PASSIVE:
			break;
		default:
			return this->control->refuse(this->control, "not-passive",
							"the IKE_SA is served by this node: freeze it");
	}
	builder = this->control->event(this->control,
								   (*ike_sa)->get_unique_id(*ike_sa));
	DBG1(DBG_IKE, "dropping IKE_SA %s[%u] without a word to the peer",
		 (*ike_sa)->get_name(*ike_sa), (*ike_sa)->get_unique_id(*ike_sa));
	if (up)
	{	/* the ha plugin tells its peer nothing of passive IKE_SAs */
		charon->bus->ike_updown(charon->bus, *ike_sa, FALSE);
	}
	charon->ike_sa_manager->checkin_and_destroy(charon->ike_sa_manager,
												*ike_sa);
	*ike_sa = NULL;
	return this->control->done(this->control, builder);
}

CALLBACK(move_status, vici_message_t*,
	private_rmobike_move_t *this, char *name, u_int client,
	vici_message_t *request)
{
	return with_ike_sa(this, request, do_status);
}

CALLBACK(freeze_, vici_message_t*,
	private_rmobike_move_t *this, char *name, u_int client,
	vici_message_t *request)
{
	return with_ike_sa(this, request, do_freeze);
}

CALLBACK(thaw, vici_message_t*,
	private_rmobike_move_t *this, char *name, u_int client,
	vici_message_t *request)
{
	return with_ike_sa(this, request, do_thaw);
}

CALLBACK(passivate, vici_message_t*,
	private_rmobike_move_t *this, char *name, u_int client,
	vici_message_t *request)
{
	return with_ike_sa(this, request, do_passivate);
}

CALLBACK(activate, vici_message_t*,
	private_rmobike_move_t *this, char *name, u_int client,
	vici_message_t *request)
{
	return with_ike_sa(this, request, do_activate);
}

CALLBACK(drop, vici_message_t*,
	private_rmobike_move_t *this, char *name, u_int client,
	vici_message_t *request)
{
	return with_ike_sa(this, request, do_drop);
}

METHOD(rmobike_move_t, destroy, void,
	private_rmobike_move_t *this)
{
	free(this);
}

/*
 * Described in header
 */
rmobike_move_t *rmobike_move_create(rmobike_control_t *control,
							rmobike_peers_t *peers, rmobike_freeze_t *freeze,
							rmobike_ahead_t *ahead)
{
	private_rmobike_move_t *this;

	INIT(this,
		.public = {
			.destroy = _destroy,
		},
		.control = control,
		.peers = peers,
		.freeze = freeze,
		.ahead = ahead,
	);

	control->add_command(control, "move-status", move_status, this);
	control->add_command(control, "freeze", freeze_, this);
	control->add_command(control, "thaw", thaw, this);
	control->add_command(control, "passivate", passivate, this);
	control->add_command(control, "activate", activate, this);
	control->add_command(control, "drop", drop, this);

	return &this->public;
}
