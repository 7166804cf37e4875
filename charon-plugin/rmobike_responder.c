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

#include "rmobike_responder.h"

#include <daemon.h>
#include <processing/jobs/callback_job.h>

#include "rmobike_task.h"

/**
 * Seconds until a switch is given up if nothing else is said
 */
#define DEFAULT_TIMEOUT 15
#define MAX_TIMEOUT 3600

typedef struct private_rmobike_responder_t private_rmobike_responder_t;

/**
 * Private data of an rmobike_responder_t object.
 */
struct private_rmobike_responder_t {

	/**
	 * Public interface
	 */
	rmobike_responder_t public;

	/**
	 * Implements the interface to our tasks
	 */
	rmobike_task_owner_t owner;

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
};

/**
 * A switch that times out or is to be sent
 */
typedef struct {
	private_rmobike_responder_t *this;
	uint32_t serial;
	u_int generation;
	u_int tries;
} timeout_t;

/**
 * Raise an event about a switch we asked for
 */
static void raise_switch(private_rmobike_responder_t *this, char *name,
						 uint32_t id, char *token, char *reason)
{
	vici_builder_t *builder;

	builder = this->control->event(this->control, id);
	builder->add_kv(builder, "token", "%s", token);
	if (reason)
	{
		builder->add_kv(builder, "reason", "%s", reason);
	}
	this->control->raise(this->control, name, 0, builder);
}

/**
 * Forget the pending switch of a locked peer
 */
static void clear_pending(rmobike_peer_t *peer)
{
	DESTROY_IF(peer->pending.target);
	memset(&peer->pending, 0, sizeof(peer->pending));
}

/**
 * Milliseconds since a point in time
 */
static u_int elapsed(timeval_t *since)
{
	timeval_t now, diff;

	time_monotonic(&now);
	timersub(&now, since, &diff);
	return diff.tv_sec * 1000 + diff.tv_usec / 1000;
}

/**
 * Check if a switch is still the pending one
 */
static bool is_pending(private_rmobike_responder_t *this,
					   rmobike_exchange_t *exchange)
{
	rmobike_peer_t *peer;
	bool wanted = FALSE;

	peer = this->peers->lock_serial(this->peers, exchange->serial);
	if (peer)
	{
		wanted = peer->pending.generation == exchange->generation;
		this->peers->unlock(this->peers);
	}
	return wanted;
}

/**
 * Get the instance a task owner belongs to
 */
static private_rmobike_responder_t *instance_of(rmobike_task_owner_t *owner)
{
	return (private_rmobike_responder_t*)((char*)owner -
						offsetof(private_rmobike_responder_t, owner));
}

/**
 * Implements rmobike_task_owner_t.wanted
 */
static bool wanted(rmobike_task_owner_t *owner, rmobike_exchange_t *exchange)
{
	return is_pending(instance_of(owner), exchange);
}

/**
 * Implements rmobike_task_owner_t.answered
 */
static void answered(rmobike_task_owner_t *owner, rmobike_exchange_t *exchange,
					 ike_sa_t *ike_sa, message_t *response)
{
	private_rmobike_responder_t *this = instance_of(owner);
	rmobike_peer_t *peer;
	bool current = FALSE;
	uint32_t id = 0;

	peer = this->peers->lock_serial(this->peers, exchange->serial);
	if (peer)
	{
		id = peer->id;
		if (peer->pending.generation == exchange->generation)
		{
			current = TRUE;
			peer->pending.acked = TRUE;
		}
		this->peers->unlock(this->peers);
	}
	if (current)
	{
		raise_switch(this, "switch-acked", id, exchange->token, NULL);
	}
}

/**
 * Queue the pending switch of a peer on its checked out IKE_SA
 */
static void queue_switch(private_rmobike_responder_t *this, ike_sa_t *ike_sa,
						 uint32_t serial)
{
	rmobike_exchange_t exchange = {
		.serial = serial,
	};
	rmobike_notify_t *notify = NULL;
	rmobike_peer_t *peer;

	peer = this->peers->lock_serial(this->peers, serial);
	if (peer)
	{
		if (peer->pending.generation)
		{
			exchange.generation = peer->pending.generation;
			memcpy(exchange.token, peer->pending.token, RMOBIKE_TOKEN_SIZE);
			notify = rmobike_notify_create(
						this->policy->get_notify_type(this->policy),
						peer->pending.target->get_address(peer->pending.target));
		}
		this->peers->unlock(this->peers);
	}
	if (notify)
	{
		rmobike_task_queue(ike_sa, rmobike_task_create(&exchange,
					linked_list_create_with_items(notify, NULL), &this->owner));
	}
}

/**
 * Job that sends a switch, once the peer knows the IKE_SA
 */
static job_requeue_t send_later(timeout_t *data)
{
	private_rmobike_responder_t *this = data->this;
	rmobike_exchange_t exchange = {
		.serial = data->serial,
		.generation = data->generation,
	};
	ike_sa_t *ike_sa;

	if (!is_pending(this, &exchange))
	{
		return JOB_REQUEUE_NONE;
	}
	if (data->tries++ < RMOBIKE_SETTLE_TRIES &&
		this->peers->is_settling(this->peers, data->serial))
	{
		return JOB_RESCHEDULE_MS(RMOBIKE_SETTLE_DELAY);
	}
	ike_sa = rmobike_task_checkout(this->peers, data->serial);
	if (ike_sa)
	{
		queue_switch(this, ike_sa, data->serial);
		charon->ike_sa_manager->checkin(charon->ike_sa_manager, ike_sa);
	}
	return JOB_REQUEUE_NONE;
}

/**
 * Have a pending switch sent by a job
 */
static void schedule_switch(private_rmobike_responder_t *this, uint32_t serial,
							u_int generation)
{
	timeout_t *data;

	INIT(data,
		.this = this,
		.serial = serial,
		.generation = generation,
	);
	lib->processor->queue_job(lib->processor,
		(job_t*)callback_job_create((void*)send_later, data, free, NULL));
}

/**
 * Implements rmobike_task_owner_t.dropped: the IKE_SA that the task was on got
 * replaced by a rekeying
 */
static void dropped(rmobike_task_owner_t *owner, rmobike_exchange_t *exchange)
{
	private_rmobike_responder_t *this = instance_of(owner);

	if (is_pending(this, exchange))
	{
		schedule_switch(this, exchange->serial, exchange->generation);
	}
}

/**
 * Job that gives up a switch
 */
static job_requeue_t give_up(timeout_t *data)
{
	private_rmobike_responder_t *this = data->this;
	char token[RMOBIKE_TOKEN_SIZE], *reason = NULL;
	rmobike_peer_t *peer;
	uint32_t id = 0;

	peer = this->peers->lock_serial(this->peers, data->serial);
	if (peer)
	{
		if (peer->pending.generation == data->generation)
		{
			id = peer->id;
			memcpy(token, peer->pending.token, sizeof(token));
			reason = peer->pending.acked ? "no-update" : "no-answer";
			clear_pending(peer);
		}
		this->peers->unlock(this->peers);
	}
	if (reason)
	{
		raise_switch(this, "switch-timeout", id, token, reason);
	}
	return JOB_REQUEUE_NONE;
}

/**
 * Check if an IKE_SA can be switched by us, return the reason if not
 */
static char *check_responder(ike_sa_t *ike_sa, host_t *target, char **text)
{
	host_t *me = ike_sa->get_my_host(ike_sa);

	if (ike_sa->has_condition(ike_sa, COND_ORIGINAL_INITIATOR))
	{
		*text = "we initiated this IKE_SA: use update-addresses";
		return "not-responder";
	}
	if (!ike_sa->supports_extension(ike_sa, EXT_MOBIKE))
	{
		*text = "the peer does not support MOBIKE";
		return "no-mobike";
	}
	if (me->ip_equals(me, target))
	{
		*text = "the IKE_SA uses this address already";
		return "already-there";
	}
	return NULL;
}

/**
 * Make a switch the pending one of a peer
 *
 * @return			FALSE if there is no such peer, or it did not send 'R'
 */
static bool set_pending(private_rmobike_responder_t *this, uint32_t id,
						host_t *target, char *token, timeout_t *timeout,
						char superseded[RMOBIKE_TOKEN_SIZE], bool *was)
{
	rmobike_peer_t *peer;
	bool done = FALSE;

	*was = FALSE;
	peer = this->peers->lock(this->peers, id, FALSE);
	if (peer)
	{
		if (peer->peer_r)
		{
			*was = peer->pending.generation != 0;
			memcpy(superseded, peer->pending.token, RMOBIKE_TOKEN_SIZE);
			clear_pending(peer);
			if (++peer->generation == 0)
			{
				peer->generation = 1;
			}
			peer->pending.generation = peer->generation;
			peer->pending.target = target->clone(target);
			memcpy(peer->pending.token, token, RMOBIKE_TOKEN_SIZE);
			time_monotonic(&peer->pending.started);
			timeout->serial = peer->serial;
			timeout->generation = peer->generation;
			done = TRUE;
		}
		this->peers->unlock(this->peers);
	}
	return done;
}

/**
 * Start a switch to a valid target
 */
static vici_message_t *start_switch(private_rmobike_responder_t *this,
						uint32_t id, host_t *target, char *token, u_int seconds)
{
	char superseded[RMOBIKE_TOKEN_SIZE], *code, *text;
	rmobike_peer_t *peer;
	timeout_t *timeout;
	ike_sa_t *ike_sa;
	uint32_t serial;
	bool was;

	peer = this->peers->lock(this->peers, id, FALSE);
	if (!peer)
	{
		return this->control->refuse(this->control, "unknown-ike-id",
									 "no IKEv2 SA with ike-id %u", id);
	}
	serial = peer->serial;
	this->peers->unlock(this->peers);
	ike_sa = rmobike_task_checkout(this->peers, serial);
	if (!ike_sa)
	{
		return this->control->refuse(this->control, "not-established",
									 "the IKE_SA is not established");
	}
	code = check_responder(ike_sa, target, &text);
	if (code)
	{
		charon->ike_sa_manager->checkin(charon->ike_sa_manager, ike_sa);
		return this->control->refuse(this->control, code, "%s", text);
	}
	INIT(timeout,
		.this = this,
	);
	id = ike_sa->get_unique_id(ike_sa);
	if (!set_pending(this, id, target, token, timeout, superseded, &was))
	{
		charon->ike_sa_manager->checkin(charon->ike_sa_manager, ike_sa);
		free(timeout);
		return this->control->refuse(this->control, "peer-without-r",
						"the peer did not announce that it can be switched");
	}
	DBG1(DBG_IKE, "asking peer of IKE_SA %s[%u] to switch to %H",
		 ike_sa->get_name(ike_sa), id, target);
	charon->ike_sa_manager->checkin(charon->ike_sa_manager, ike_sa);
	schedule_switch(this, timeout->serial, timeout->generation);

	lib->scheduler->schedule_job(lib->scheduler,
			(job_t*)callback_job_create((void*)give_up, timeout, free, NULL),
			seconds);
	if (was)
	{
		raise_switch(this, "switch-superseded", id, superseded, NULL);
	}
	return this->control->done(this->control, NULL);
}

CALLBACK(switch_address, vici_message_t*,
	private_rmobike_responder_t *this, char *name, u_int client,
	vici_message_t *request)
{
	char token[RMOBIKE_TOKEN_SIZE], *address;
	uint32_t id, seconds = DEFAULT_TIMEOUT;
	vici_message_t *response;
	host_t *target;

	if (!rmobike_parse_number(request->get_str(request, NULL, "ike-id"), 1,
							  UINT32_MAX, &id) ||
		!rmobike_parse_token(request->get_str(request, NULL, "token"), token) ||
		(request->get_str(request, NULL, "timeout") &&
		 !rmobike_parse_number(request->get_str(request, NULL, "timeout"), 1,
							   MAX_TIMEOUT, &seconds)))
	{
		return this->control->refuse(this->control, "bad-request",
					"ike-id and timeout have to be numbers, token short");
	}
	address = request->get_str(request, "", "address");
	target = rmobike_parse_address(address);
	if (!target)
	{
		return this->control->refuse(this->control, "bad-address",
								"'%s' is not a unicast IP address", address);
	}
	if (!request->get_bool(request, FALSE, "foreign") && !rmobike_is_local(target))
	{
		response = this->control->refuse(this->control, "not-local",
								"%H is not one of our addresses", target);
	}
	else
	{
		response = start_switch(this, id, target, token, seconds);
	}
	target->destroy(target);
	return response;
}

/**
 * Conclude the pending switch of an IKE_SA that is on this path now, if it is
 * the current one of its peer: what happens to an IKE_SA that got rekeyed does
 * not move its successor
 */
static void arrived(private_rmobike_responder_t *this, ike_sa_t *ike_sa,
					host_t *local, host_t *remote)
{
	uint32_t id = ike_sa->get_unique_id(ike_sa);
	vici_builder_t *builder;
	char token[RMOBIKE_TOKEN_SIZE];
	rmobike_peer_t *peer;
	bool done = FALSE;
	u_int ms = 0;

	peer = this->peers->lock(this->peers, id, FALSE);
	if (peer)
	{
		if (peer->id == id && peer->pending.generation &&
			local->ip_equals(local, peer->pending.target))
		{
			done = TRUE;
			ms = elapsed(&peer->pending.started);
			memcpy(token, peer->pending.token, sizeof(token));
			clear_pending(peer);
		}
		this->peers->unlock(this->peers);
	}
	if (done)
	{
		builder = this->control->event(this->control, id);
		builder->add_kv(builder, "token", "%s", token);
		builder->add_kv(builder, "local", "%H", local);
		builder->add_kv(builder, "remote", "%H", remote);
		builder->add_kv(builder, "elapsed-ms", "%u", ms);
		this->control->raise(this->control, "switch-done", 0, builder);
	}
}

METHOD(rmobike_responder_t, updated, void,
	private_rmobike_responder_t *this, ike_sa_t *ike_sa, host_t *local,
	host_t *remote)
{
	arrived(this, ike_sa, local, remote);
}

METHOD(rmobike_responder_t, rekeyed, void,
	private_rmobike_responder_t *this, ike_sa_t *ike_sa)
{
	arrived(this, ike_sa, ike_sa->get_my_host(ike_sa),
			ike_sa->get_other_host(ike_sa));
}

METHOD(rmobike_responder_t, gone, void,
	private_rmobike_responder_t *this, ike_sa_t *ike_sa)
{
	char token[RMOBIKE_TOKEN_SIZE];
	uint32_t id = ike_sa->get_unique_id(ike_sa);

	if (this->peers->remove(this->peers, id, token))
	{
		raise_switch(this, "switch-timeout", id, token, "ike-sa-gone");
	}
}

METHOD(rmobike_responder_t, destroy, void,
	private_rmobike_responder_t *this)
{
	free(this);
}

/*
 * Described in header
 */
rmobike_responder_t *rmobike_responder_create(rmobike_control_t *control,
							rmobike_peers_t *peers, rmobike_policy_t *policy)
{
	private_rmobike_responder_t *this;

	INIT(this,
		.public = {
			.updated = _updated,
			.rekeyed = _rekeyed,
			.gone = _gone,
			.destroy = _destroy,
		},
		.owner = {
			.renews = TRUE,
			.wanted = wanted,
			.answered = answered,
			.dropped = dropped,
		},
		.control = control,
		.peers = peers,
		.policy = policy,
	);

	control->add_event(control, "switch-acked");
	control->add_event(control, "switch-done");
	control->add_event(control, "switch-timeout");
	control->add_event(control, "switch-superseded");
	control->add_command(control, "switch-address", switch_address, this);

	return &this->public;
}
