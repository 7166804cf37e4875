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
 * Inbound SAs that are there at a second address for a moment: what the peer
 * sends there is received already, or still.
 *
 * Each is a copy of an SA of charon with the same SPI, of which charon does not
 * know.  There is at most one of each SA, and it goes by itself.
 *
 * @defgroup rmobike_spare rmobike_spare
 * @{ @ingroup rmobike
 */

#ifndef RMOBIKE_SPARE_H_
#define RMOBIKE_SPARE_H_

#include <kernel/kernel_ipsec.h>

/**
 * Have an SA be there at a second address for a while, if the kernel lets us.
 *
 * @param id			SA, gets cloned
 * @param dst			second address, gets cloned
 * @param encap			TRUE if the SA uses UDP encapsulation
 */
void rmobike_spare_open(kernel_ipsec_sa_id_t *id, host_t *dst, bool encap);

/**
 * Remove the copy of an SA.
 *
 * @param spi			SPI of the SA
 * @param dst			only if it is at this address, NULL for any
 */
void rmobike_spare_close(uint32_t spi, host_t *dst);

/**
 * Lock all spare SAs, for the functions below.
 */
void rmobike_spare_lock();

/**
 * Unlock them.
 */
void rmobike_spare_unlock();

/**
 * Check if there is a copy of an SA at an address.
 *
 * @param spi			SPI of the SA
 * @param dst			address
 * @return				TRUE if so
 */
bool rmobike_spare_is_at(uint32_t spi, host_t *dst);

/**
 * Have an SA that takes the place of a copy know what that received.
 *
 * @param spi			SPI of the SA, of which there is a copy
 * @param copy			request to add the SA, gets changed
 * @param other			the copy, as the kernel sent it
 */
void rmobike_spare_merge(uint32_t spi, chunk_t copy, chunk_t other);

/**
 * An SA is at another address now, where its copy may have been; what was the
 * SA is its copy.
 *
 * @param id			SA as it was, gets cloned
 * @param dst			address where it is now
 */
void rmobike_spare_swapped(kernel_ipsec_sa_id_t *id, host_t *dst);

/**
 * Initialize.
 */
void rmobike_spare_init();

/**
 * Remove all spare SAs.
 */
void rmobike_spare_deinit();

#endif /** RMOBIKE_SPARE_H_ @}*/
