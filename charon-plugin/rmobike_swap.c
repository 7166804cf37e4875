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


#include "rmobike_swap.h"

#include <ifaddrs.h>

#include <daemon.h>
#include <collections/array.h>
#include <threading/thread_value.h>

#include "rmobike_guard.h"
#include "rmobike_spare.h"
#include "rmobike_xfrm.h"

/**
 * Sequence numbers left out by a copy of an outbound SA, and for each packet that
 * was sent while the copy was prepared.  As long as it is less than the replay
 * window of the peer (32 by default), that still takes packets that were
 * overtaken by the first ones of the copy.
 */
#define SEQUENCE_GAP 16

/**
 * Most sequence numbers left out: a small part of those there are
 */
#define MAX_SEQUENCE_GAP 65536

/**
 * Most policies that are changed in one go
 */
#define MAX_POLICIES 64

/**
 * What is done with charon's calls
 */
typedef enum {
	/** nothing was called yet */
	PHASE_BEGUN,
	/** they are held back until the SAs are updated */
	PHASE_HOLDING,
	/** we update the SAs; policies are added, then those held are deleted */
	PHASE_SWAPPING,
	/** they are carried out as they come */
	PHASE_PASSING,
} phase_t;

/**
 * A call that is held back
 */
typedef struct {

	/** TRUE if a policy is to be added, FALSE if deleted */
	bool add;

	/** policy; what it points to belongs to the CHILD_SA */
	kernel_ipsec_policy_id_t id;

	/** data of the policy */
	kernel_ipsec_manage_policy_t data;

	/** SA of the policy */
	ipsec_sa_cfg_t sa;
} held_t;

/**
 * A CHILD_SA whose addresses are being updated by a thread
 */
typedef struct {

	/** the CHILD_SA */
	child_sa_t *child_sa;

	/** what is done with charon's calls */
	phase_t phase;

	/** calls that are held back, held_t */
	array_t *held;

	/** virtual IP whose removal is held back, NULL if none */
	host_t *vip;
} update_t;

/**
 * Methods of an object of charon get nothing of ours
 */
static struct {

	/**
	 * Update in progress in a thread, update_t
	 */
	thread_value_t *update;

	/**
	 * charon's own methods
	 */
	status_t (*update_sa)(kernel_interface_t *this, kernel_ipsec_sa_id_t *id,
						  kernel_ipsec_update_sa_t *data);
	status_t (*del_sa)(kernel_interface_t *this, kernel_ipsec_sa_id_t *id,
					   kernel_ipsec_del_sa_t *data);
	status_t (*add_policy)(kernel_interface_t *this,
						   kernel_ipsec_policy_id_t *id,
						   kernel_ipsec_manage_policy_t *data);
	status_t (*del_policy)(kernel_interface_t *this,
						   kernel_ipsec_policy_id_t *id,
						   kernel_ipsec_manage_policy_t *data);
	status_t (*add_ip)(kernel_interface_t *this, host_t *virtual_ip, int prefix,
					   char *iface);
	status_t (*del_ip)(kernel_interface_t *this, host_t *virtual_ip, int prefix,
					   bool wait);
} global;

/**
 * Get the update in progress in this thread, NULL if there is none
 */
static update_t *current_update()
{
	return global.update ? global.update->get(global.update) : NULL;
}

/**
 * Destroy an update
 */
static void update_destroy(update_t *update)
{
	array_destroy_function(update->held, (void*)free, NULL);
	free(update);
}

/**
 * Hold a call back
 */
static status_t hold(update_t *update, bool add, kernel_ipsec_policy_id_t *id,
					 kernel_ipsec_manage_policy_t *data)
{
	held_t *held;

	INIT(held,
		.add = add,
		.id = *id,
		.data = *data,
		.sa = *data->sa,
	);
	held->data.sa = &held->sa;
	array_insert(update->held, ARRAY_TAIL, held);
	return SUCCESS;
}

/**
 * Carry out the calls that were held back, or of these only the deletions
 */
static void release(update_t *update, bool adds)
{
	held_t *held;

	while (array_remove(update->held, ARRAY_HEAD, &held))
	{
		if (!held->add)
		{
			global.del_policy(charon->kernel, &held->id, &held->data);
		}
		else if (adds)
		{
			global.add_policy(charon->kernel, &held->id, &held->data);
		}
		free(held);
	}
}

/**
 * Leave it all to charon
 */
static void pass(update_t *update)
{
	update->phase = PHASE_PASSING;
	release(update, TRUE);
}

/**
 * Check if a call is about policies that we can read
 */
static bool is_plain_policy(kernel_ipsec_policy_id_t *id)
{
	return !id->label;
}

/**
 * Replaces kernel_interface_t.add_policy
 */
static status_t add_policy(kernel_interface_t *this,
						   kernel_ipsec_policy_id_t *id,
						   kernel_ipsec_manage_policy_t *data)
{
	update_t *update = current_update();

	if (update)
	{
		if (update->phase == PHASE_BEGUN)
		{	/* without traffic to go out charon adds none to drop it */
			update->phase = data->type == POLICY_DROP && is_plain_policy(id)
							? PHASE_HOLDING : PHASE_PASSING;
		}
		if (update->phase == PHASE_HOLDING)
		{
			if (data->type == POLICY_DROP)
			{
				return hold(update, TRUE, id, data);
			}
			pass(update);
		}
	}
	return global.add_policy(this, id, data);
}

/**
 * Replaces kernel_interface_t.del_policy
 */
static status_t del_policy(kernel_interface_t *this,
						   kernel_ipsec_policy_id_t *id,
						   kernel_ipsec_manage_policy_t *data)
{
	update_t *update = current_update();

	if (update)
	{
		switch (update->phase)
		{
			case PHASE_BEGUN:
				update->phase = PHASE_PASSING;
				break;
			case PHASE_HOLDING:
				return hold(update, FALSE, id, data);
			case PHASE_SWAPPING:
				/* all others are there now; this one was never added */
				release(update, FALSE);
				return SUCCESS;
			case PHASE_PASSING:
				break;
		}
	}
	return global.del_policy(this, id, data);
}

/**
 * Check if policies depend on an address that changes
 */
static bool is_selected(update_t *update, host_t *old, host_t *new)
{
	enumerator_t *enumerator;
	held_t *held;
	bool selected = FALSE;

	if (old->ip_equals(old, new))
	{
		return FALSE;
	}
	enumerator = array_create_enumerator(update->held);
	while (!selected && enumerator->enumerate(enumerator, &held))
	{
		selected = held->id.src_ts->is_host(held->id.src_ts, old) ||
				   held->id.dst_ts->is_host(held->id.dst_ts, old);
	}
	enumerator->destroy(enumerator);
	return selected;
}

/**
 * Ask for the policies of an SA
 *
 * @param inbound		TRUE for those that packets are checked against
 * @return				number of policies asked for
 */
static u_int ask_for_policies(update_t *update, rmobike_xfrm_t *xfrm,
							  bool inbound)
{
	enumerator_t *enumerator;
	held_t *held;
	u_int count = 0;

	enumerator = array_create_enumerator(update->held);
	while (enumerator->enumerate(enumerator, &held))
	{
		if (!held->add && held->data.type == POLICY_IPSEC &&
			(held->id.dir == POLICY_OUT) == !inbound && held->sa.reqid)
		{
			xfrm->add(xfrm, rmobike_xfrm_get_policy(&held->id));
			count++;
		}
	}
	enumerator->destroy(enumerator);
	return count;
}

/**
 * Take the policies that use an SA out of the replies
 *
 * @param first			number of the first of the replies
 * @param count			number of policies asked for
 * @return				policies as the kernel sent them, chunk_t
 */
static array_t *take_policies(rmobike_xfrm_t *xfrm, u_int first, u_int count,
							  kernel_ipsec_sa_id_t *id)
{
	array_t *policies = array_create(sizeof(chunk_t), count);
	chunk_t policy;

	while (count--)
	{
		policy = xfrm->get_reply(xfrm, first++);
		if (rmobike_xfrm_uses(policy, id))
		{
			policy = chunk_clone(policy);
			array_insert(policies, ARRAY_TAIL, &policy);
		}
	}
	return policies;
}

/**
 * Free a policy
 */
static void free_policy(chunk_t *policy, int idx, void *user)
{
	chunk_free(policy);
}

/**
 * Add the requests that have policies use the addresses of an SA
 */
static void redirect_policies(rmobike_xfrm_t *xfrm, array_t *policies,
							  host_t *src, host_t *dst)
{
	chunk_t policy;
	int i;

	for (i = 0; i < array_count(policies); i++)
	{
		array_get(policies, i, &policy);
		xfrm->add(xfrm, rmobike_xfrm_redirect(policy, src, dst));
	}
}

/**
 * Add the requests that have policies be what they were
 */
static void restore_policies(rmobike_xfrm_t *xfrm, array_t *policies)
{
	chunk_t policy;
	int i;

	for (i = 0; i < array_count(policies); i++)
	{
		array_get(policies, i, &policy);
		xfrm->add(xfrm, rmobike_xfrm_restore(policy));
	}
}

/**
 * Put things back after the kernel refused something, for charon to try
 */
static void undo(rmobike_xfrm_t *xfrm, array_t *policies, chunk_t sa,
				 kernel_ipsec_sa_id_t *id)
{
	xfrm->reset(xfrm);
	if (sa.ptr)
	{
		xfrm->add(xfrm, rmobike_xfrm_copy_sa(sa, id->src, id->dst));
	}
	restore_policies(xfrm, policies);
	xfrm->run(xfrm);
}

/**
 * Change an inbound SA; spare SAs are locked.
 *
 * If its own address stays, so does what identifies it to the kernel: it is
 * replaced in one go.  Otherwise the new one is added, or takes the place of
 * the copy that is there already, and the old one stays for a moment.
 */
static bool swap_inbound(update_t *update, rmobike_xfrm_t *xfrm,
						 kernel_ipsec_sa_id_t *id,
						 kernel_ipsec_update_sa_t *data)
{
	bool moves = !id->dst->ip_equals(id->dst, data->new_dst), copied, done;
	kernel_ipsec_sa_id_t new = *id;
	array_t *policies;
	chunk_t sa, copy;
	u_int first, count, number;

	new.src = data->new_src;
	new.dst = data->new_dst;
	copied = moves && rmobike_spare_is_at(id->spi, data->new_dst);
	xfrm->add(xfrm, rmobike_xfrm_get_sa(id));
	if (copied)
	{
		xfrm->add(xfrm, rmobike_xfrm_get_sa(&new));
	}
	first = copied ? 2 : 1;
	count = ask_for_policies(update, xfrm, TRUE);
	if (!count || count > MAX_POLICIES || !xfrm->run(xfrm) ||
		!rmobike_xfrm_is_plain(xfrm->get_reply(xfrm, 0), data->new_encap))
	{
		return FALSE;
	}
	policies = take_policies(xfrm, first, count, id);
	sa = chunk_clone(xfrm->get_reply(xfrm, 0));
	copy = rmobike_xfrm_copy_sa(sa, data->new_src, data->new_dst);
	if (copied)
	{
		rmobike_spare_merge(id->spi, copy, xfrm->get_reply(xfrm, 1));
	}
	xfrm->reset(xfrm);
	if (!moves || copied)
	{
		xfrm->add(xfrm, rmobike_xfrm_del_sa(&new));
	}
	number = xfrm->add(xfrm, copy);
	redirect_policies(xfrm, policies, data->new_src, data->new_dst);
	xfrm->run(xfrm);
	done = xfrm->is_done(xfrm, number);
	if (done && moves)
	{
		rmobike_spare_swapped(id, data->new_dst);
	}
	if (!done)
	{
		undo(xfrm, policies, moves ? chunk_empty : sa, id);
	}
	chunk_clear(&sa);
	array_destroy_function(policies, (void*)free_policy, NULL);
	return done;
}

/**
 * Add the requests that have policies drop packets
 */
static void block_policies(rmobike_xfrm_t *xfrm, array_t *policies)
{
	chunk_t policy;
	int i;

	for (i = 0; i < array_count(policies); i++)
	{
		array_get(policies, i, &policy);
		xfrm->add(xfrm, rmobike_xfrm_block(policy));
	}
}

/**
 * Prepare the change of an outbound SA
 *
 * @param sa			SA, as the kernel sent it
 * @param policies		policies that use it
 * @param next			requests are added here
 * @param number		number of the request that adds the SA
 * @return				that request
 */
static chunk_t prepare_outbound(chunk_t sa, array_t *policies,
								rmobike_xfrm_t *next, kernel_ipsec_sa_id_t *id,
								kernel_ipsec_update_sa_t *data, u_int *number)
{
	bool moves = !id->dst->ip_equals(id->dst, data->new_dst);
	chunk_t copy;

	copy = rmobike_xfrm_copy_sa(sa, data->new_src, data->new_dst);
	if (!moves)
	{	/* a policy whose SA is missing has the kernel ask for one */
		block_policies(next, policies);
		next->add(next, rmobike_xfrm_del_sa(id));
	}
	*number = next->add(next, copy);
	redirect_policies(next, policies, data->new_src, data->new_dst);
	if (moves)
	{
		next->add(next, rmobike_xfrm_del_sa(id));
	}
	return copy;
}

/**
 * Change an outbound SA.
 *
 * If the peer's address changes, both SAs can be there: the new one is added,
 * policies use it, the old one goes.  Otherwise it is replaced, and nothing is
 * sent in between.  The sequence numbers are read just before; the new SA leaves
 * out some, for what the old one has sent since: more if much is being sent.
 */
static bool swap_outbound(update_t *update, rmobike_xfrm_t *xfrm,
						  rmobike_xfrm_t *next, kernel_ipsec_sa_id_t *id,
						  kernel_ipsec_update_sa_t *data)
{
	array_t *policies;
	chunk_t copy, sa;
	u_int count, number;
	uint32_t gap;
	bool done = FALSE;

	xfrm->add(xfrm, rmobike_xfrm_get_sa(id));
	count = ask_for_policies(update, xfrm, FALSE);
	if (!count || count > MAX_POLICIES || !xfrm->run(xfrm) ||
		!rmobike_xfrm_is_plain(xfrm->get_reply(xfrm, 0), data->new_encap))
	{
		return FALSE;
	}
	policies = take_policies(xfrm, 1, count, id);
	copy = prepare_outbound(xfrm->get_reply(xfrm, 0), policies, next, id, data,
							&number);
	xfrm->reset(xfrm);
	xfrm->add(xfrm, rmobike_xfrm_get_sa(id));
	if (xfrm->run(xfrm))
	{
		gap = SEQUENCE_GAP * (1 +
						rmobike_xfrm_refresh(copy, xfrm->get_reply(xfrm, 0)));
		rmobike_xfrm_advance(copy, min(gap, MAX_SEQUENCE_GAP));
		next->run(next);
		done = next->is_done(next, number);
		if (!done)
		{
			sa = chunk_clone(xfrm->get_reply(xfrm, 0));
			undo(xfrm, policies, sa, id);
			chunk_clear(&sa);
		}
	}
	array_destroy_function(policies, (void*)free_policy, NULL);
	return done;
}

/**
 * Change an SA in one go
 */
static bool swap(update_t *update, kernel_ipsec_sa_id_t *id,
				 kernel_ipsec_update_sa_t *data)
{
	rmobike_xfrm_t *xfrm, *next;
	bool done = FALSE;

	if (data->cpi || data->new_reqid || data->encap != data->new_encap ||
		id->src->get_family(id->src) !=
									data->new_src->get_family(data->new_src) ||
		is_selected(update, id->src, data->new_src) ||
		is_selected(update, id->dst, data->new_dst))
	{
		return FALSE;
	}
	xfrm = rmobike_xfrm_create();
	next = rmobike_xfrm_create();
	if (!xfrm || !next)
	{
		/* left to charon */
	}
	else if (id->spi == update->child_sa->get_spi(update->child_sa, TRUE))
	{
		rmobike_spare_lock();
		done = swap_inbound(update, xfrm, id, data);
		rmobike_spare_unlock();
	}
	else
	{
		done = swap_outbound(update, xfrm, next, id, data);
	}
	DESTROY_IF(xfrm);
	DESTROY_IF(next);
	if (done)
	{
		DBG2(DBG_KNL, "updated SAD entry with SPI %.8x from %#H..%#H to "
			 "%#H..%#H in one go", ntohl(id->spi), id->src, id->dst,
			 data->new_src, data->new_dst);
	}
	else
	{
		DBG1(DBG_KNL, "unable to update SAD entry with SPI %.8x in one go, "
			 "doing it step by step", ntohl(id->spi));
	}
	return done;
}

/**
 * Replaces kernel_interface_t.update_sa
 */
static status_t update_sa(kernel_interface_t *this, kernel_ipsec_sa_id_t *id,
						  kernel_ipsec_update_sa_t *data)
{
	update_t *update = current_update();

	if (update && (update->phase == PHASE_HOLDING ||
				   update->phase == PHASE_SWAPPING))
	{
		if (swap(update, id, data))
		{
			update->phase = PHASE_SWAPPING;
			return SUCCESS;
		}
		pass(update);
	}
	/* where charon adds the SA */
	rmobike_spare_close(id->spi, data->new_dst);
	return global.update_sa(this, id, data);
}

/**
 * Replaces kernel_interface_t.del_sa
 */
static status_t del_sa(kernel_interface_t *this, kernel_ipsec_sa_id_t *id,
					   kernel_ipsec_del_sa_t *data)
{
	rmobike_spare_close(id->spi, NULL);
	return global.del_sa(this, id, data);
}

/**
 * Check if an interface has an address
 */
static bool has_address(char *iface, host_t *address)
{
	struct ifaddrs *list, *current;
	bool found = FALSE;
	host_t *host;

	if (getifaddrs(&list) != 0)
	{
		return FALSE;
	}
	for (current = list; current && !found; current = current->ifa_next)
	{
		if (current->ifa_addr && streq(current->ifa_name, iface) &&
			current->ifa_addr->sa_family == address->get_family(address))
		{
			host = host_create_from_sockaddr(current->ifa_addr);
			found = host && host->ip_equals(host, address);
			DESTROY_IF(host);
		}
	}
	freeifaddrs(list);
	return found;
}

/**
 * Replaces kernel_interface_t.del_ip: charon takes virtual IPs off and puts them
 * back, in case that they belong to another interface now
 */
static status_t del_ip(kernel_interface_t *this, host_t *vip, int prefix,
					   bool wait)
{
	update_t *update = current_update();

	if (update && update->phase == PHASE_SWAPPING && !update->vip)
	{
		update->vip = vip;
		return SUCCESS;
	}
	return global.del_ip(this, vip, prefix, wait);
}

/**
 * Replaces kernel_interface_t.add_ip
 */
static status_t add_ip(kernel_interface_t *this, host_t *vip, int prefix,
					   char *iface)
{
	update_t *update = current_update();

	if (update && update->vip == vip)
	{
		update->vip = NULL;
		if (has_address(iface, vip))
		{
			return SUCCESS;
		}
		global.del_ip(this, vip, prefix, TRUE);
	}
	return global.add_ip(this, vip, prefix, iface);
}

/**
 * Check if the kernel's IPsec is in use, by its netlink interface, and the
 * layout of CHILD_SAs, once there is one
 */
static bool is_known(child_sa_t *child_sa)
{
	static enum { UNCHECKED, GOOD, BAD } layout = UNCHECKED;
	kernel_feature_t features;

	features = charon->kernel->get_features(charon->kernel);
	if (!(features & KERNEL_POLICY_SPI) ||
		(features & (KERNEL_REQUIRE_UDP_ENCAPSULATION |
					 KERNEL_NO_POLICY_UPDATES)))
	{
		return FALSE;
	}
	if (layout == UNCHECKED)
	{
		layout = rmobike_guard_table("child_sa_t", child_sa, sizeof(*child_sa),
									 child_sa_create) ? GOOD : BAD;
	}
	return layout == GOOD;
}

/*
 * Described in header
 */
void rmobike_swap_state(child_sa_t *child_sa, child_sa_state_t state)
{
	update_t *update = current_update();

	if (!global.update)
	{
		return;
	}
	if (update)
	{
		if (update->child_sa != child_sa)
		{
			return;
		}
		/* nothing is left here unless charon does other things than we know */
		release(update, update->phase != PHASE_SWAPPING);
		if (update->vip)
		{
			global.del_ip(charon->kernel, update->vip, -1, FALSE);
		}
		update_destroy(update);
		global.update->set(global.update, NULL);
	}
	if (state == CHILD_UPDATING && is_known(child_sa))
	{
		INIT(update,
			.child_sa = child_sa,
			.held = array_create(0, 0),
		);
		global.update->set(global.update, update);
	}
}

/*
 * Described in header
 */
void rmobike_swap_request(ike_sa_t *ike_sa, message_t *message)
{
	host_t *used = ike_sa->get_my_host(ike_sa);
	host_t *dst = message->get_destination(message);
	enumerator_t *enumerator;
	child_sa_t *child_sa;

	if (!global.update || ike_sa->get_state(ike_sa) != IKE_ESTABLISHED ||
		!ike_sa->supports_extension(ike_sa, EXT_MOBIKE) ||
		used->get_family(used) != dst->get_family(dst) ||
		used->ip_equals(used, dst))
	{
		return;
	}
	enumerator = ike_sa->create_child_sa_enumerator(ike_sa);
	while (enumerator->enumerate(enumerator, &child_sa))
	{
		if (is_known(child_sa) &&
			child_sa->get_protocol(child_sa) == PROTO_ESP &&
			child_sa->get_mode(child_sa) == MODE_TUNNEL)
		{
			kernel_ipsec_sa_id_t id = {
				.src = ike_sa->get_other_host(ike_sa),
				.dst = used,
				.spi = child_sa->get_spi(child_sa, TRUE),
				.proto = IPPROTO_ESP,
				.mark = child_sa->get_mark(child_sa, TRUE),
				.if_id = child_sa->get_if_id(child_sa, TRUE),
			};
			rmobike_spare_open(&id, dst, child_sa->has_encap(child_sa));
		}
	}
	enumerator->destroy(enumerator);
}

/*
 * Described in header
 */
void rmobike_swap_init()
{
	kernel_interface_t *kernel = charon->kernel;

	if (!lib->settings->get_bool(lib->settings,
							"%s.plugins.rmobike.make_before_break", TRUE,
							lib->ns))
	{
		return;
	}
	rmobike_spare_init();
	global.update = thread_value_create((void*)update_destroy);
	global.update_sa = kernel->update_sa;
	global.del_sa = kernel->del_sa;
	global.add_policy = kernel->add_policy;
	global.del_policy = kernel->del_policy;
	global.add_ip = kernel->add_ip;
	global.del_ip = kernel->del_ip;
	kernel->update_sa = update_sa;
	kernel->del_sa = del_sa;
	kernel->add_policy = add_policy;
	kernel->del_policy = del_policy;
	kernel->add_ip = add_ip;
	kernel->del_ip = del_ip;
}

/*
 * Described in header
 */
void rmobike_swap_deinit()
{
	kernel_interface_t *kernel = charon->kernel;

	if (!global.update)
	{
		return;
	}
	kernel->update_sa = global.update_sa;
	kernel->del_sa = global.del_sa;
	kernel->add_policy = global.add_policy;
	kernel->del_policy = global.del_policy;
	kernel->add_ip = global.add_ip;
	kernel->del_ip = global.del_ip;
	rmobike_spare_deinit();
	global.update->destroy(global.update);
	memset(&global, 0, sizeof(global));
}
