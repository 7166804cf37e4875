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

/**
 * Messages of the Linux kernel's IPsec (netlink, XFRM), several of which it
 * carries out in one go: from one system call, nothing of ours in between.
 *
 * @defgroup rmobike_xfrm rmobike_xfrm
 * @{ @ingroup rmobike
 */

#ifndef RMOBIKE_XFRM_H_
#define RMOBIKE_XFRM_H_

#include <kernel/kernel_ipsec.h>

typedef struct rmobike_xfrm_t rmobike_xfrm_t;

/**
 * A list of requests, and what the kernel replied.
 *
 * Requests and replies may have keys in them: they are wiped when they go.
 */
struct rmobike_xfrm_t {

	/**
	 * Add a request to the list.
	 *
	 * @param message		netlink message, gets adopted
	 * @return				number of the request in the list
	 */
	u_int (*add)(rmobike_xfrm_t *this, chunk_t message);

	/**
	 * Have the kernel carry out the requests on the list, in one go.
	 *
	 * @return				TRUE if all of them succeeded
	 */
	bool (*run)(rmobike_xfrm_t *this);

	/**
	 * Get what the kernel sent because of a request.
	 *
	 * @param number		number of the request in the list
	 * @return				netlink message, internal data, empty if none
	 */
	chunk_t (*get_reply)(rmobike_xfrm_t *this, u_int number);

	/**
	 * Check if a request succeeded.
	 *
	 * @param number		number of the request in the list
	 * @return				TRUE if so
	 */
	bool (*is_done)(rmobike_xfrm_t *this, u_int number);

	/**
	 * Begin a new list.
	 */
	void (*reset)(rmobike_xfrm_t *this);

	/**
	 * Destroy a rmobike_xfrm_t.
	 */
	void (*destroy)(rmobike_xfrm_t *this);
};

/**
 * Create an empty list of requests.
 *
 * @return				list, NULL if the kernel has no such socket
 */
rmobike_xfrm_t *rmobike_xfrm_create();

/**
 * Create the request to get an SA.
 *
 * @param id			SA, of which the source does not matter
 * @return				netlink message
 */
chunk_t rmobike_xfrm_get_sa(kernel_ipsec_sa_id_t *id);

/**
 * Create the request to delete an SA.
 *
 * @param id			SA, of which the source does not matter
 * @return				netlink message
 */
chunk_t rmobike_xfrm_del_sa(kernel_ipsec_sa_id_t *id);

/**
 * Check if an SA is one that we know to copy: in tunnel mode, not offloaded,
 * with its sequence numbers told.
 *
 * @param sa			SA, as the kernel sent it
 * @param encap			TRUE if it is to use UDP encapsulation
 * @return				TRUE if so
 */
bool rmobike_xfrm_is_plain(chunk_t sa, bool encap);

/**
 * Create the request to add a copy of an SA, with other addresses.
 *
 * @param sa			SA, as the kernel sent it
 * @param src			source address (and port)
 * @param dst			destination address (and port)
 * @return				netlink message
 */
chunk_t rmobike_xfrm_copy_sa(chunk_t sa, host_t *src, host_t *dst);

/**
 * Have a copy of an SA know what the original has sent, received and counted
 * since it was copied.
 *
 * @param copy			request to add an SA, gets changed
 * @param sa			the original, as the kernel sent it
 * @return				packets sent since, at most UINT16_MAX are told
 */
uint32_t rmobike_xfrm_refresh(chunk_t copy, chunk_t sa);

/**
 * Have a copy begin with a later sequence number than the original left off.
 *
 * @param copy			request to add an outbound SA, gets changed
 * @param gap			numbers to leave out
 */
void rmobike_xfrm_advance(chunk_t copy, uint32_t gap);

/**
 * Have a copy of an inbound SA know what was received on another copy too.
 *
 * @param copy			request to add an inbound SA, gets changed
 * @param other			other copy, as the kernel sent it
 */
void rmobike_xfrm_merge(chunk_t copy, chunk_t other);

/**
 * Have a copy count what another copy has counted too.
 *
 * @param copy			request to add an SA, gets changed
 * @param other			other copy, as the kernel sent it
 */
void rmobike_xfrm_add_usage(chunk_t copy, chunk_t other);

/**
 * Have a copy count from zero.
 *
 * @param copy			request to add an SA, gets changed
 */
void rmobike_xfrm_reset_usage(chunk_t copy);

/**
 * Create the request to get a policy.
 *
 * @param id			policy
 * @return				netlink message
 */
chunk_t rmobike_xfrm_get_policy(kernel_ipsec_policy_id_t *id);

/**
 * Check if a policy has packets use a given SA.
 *
 * @param policy		policy, as the kernel sent it
 * @param id			SA
 * @return				TRUE if so
 */
bool rmobike_xfrm_uses(chunk_t policy, kernel_ipsec_sa_id_t *id);

/**
 * Create the request to have a policy be what it was.
 *
 * @param policy		policy, as the kernel sent it
 * @return				netlink message
 */
chunk_t rmobike_xfrm_restore(chunk_t policy);

/**
 * Create the request to have a policy drop packets.
 *
 * @param policy		policy, as the kernel sent it
 * @return				netlink message
 */
chunk_t rmobike_xfrm_block(chunk_t policy);

/**
 * Create the request to have a policy use an SA with other addresses.
 *
 * @param policy		policy, as the kernel sent it
 * @param src			source address
 * @param dst			destination address
 * @return				netlink message
 */
chunk_t rmobike_xfrm_redirect(chunk_t policy, host_t *src, host_t *dst);

#endif /** RMOBIKE_XFRM_H_ @}*/
