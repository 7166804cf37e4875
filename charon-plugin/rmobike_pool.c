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


#include "rmobike_pool.h"

#include <daemon.h>
#include <collections/array.h>
#include <threading/mutex.h>

#define MAX_POOLS 64
#define MAX_ADDRESSES 65536
#define MAX_NAME 63
#define MAX_IDENTITY 511

typedef struct private_rmobike_pool_t private_rmobike_pool_t;
typedef struct pool_t pool_t;
typedef struct entry_t entry_t;

/**
 * Private data of an rmobike_pool_t object.
 */
struct private_rmobike_pool_t {

	/**
	 * Public interface
	 */
	rmobike_pool_t public;

	/**
	 * Socket, for commands and events
	 */
	rmobike_control_t *control;

	/**
	 * Known peers
	 */
	rmobike_peers_t *peers;

	/**
	 * Pools, pool_t
	 */
	linked_list_t *pools;

	/**
	 * Leaf mutex for the pools
	 */
	mutex_t *mutex;
};

/**
 * An address of the stock
 */
struct entry_t {

	/**
	 * The address
	 */
	host_t *address;

	/**
	 * Who had it last, NULL if anybody may have it
	 */
	char *identity;

	/**
	 * Number of IKE_SAs here that have it
	 */
	u_int online;

	/**
	 * Said to belong to an IKE_SA that came from another node, and did not
	 * acquire it here
	 */
	bool held;

	/**
	 * An IKE_SA of that identity may have it at another node
	 */
	bool elsewhere;

	/**
	 * That IKE_SA is being redirected to us
	 */
	bool expected;
};

/**
 * A pool
 */
struct pool_t {

	/**
	 * Name that connections refer to
	 */
	char *name;

	/**
	 * All addresses have to be in here
	 */
	traffic_selector_t *network;

	/**
	 * Family of the network
	 */
	int family;

	/**
	 * Addresses, entry_t
	 */
	array_t *entries;
};

/**
 * What an event tells
 */
typedef struct {
	char pool[MAX_NAME + 1];
	char identity[MAX_IDENTITY + 1];
	host_t *address;
	u_int online;
	u_int free;
} told_t;

/**
 * Destroy an entry, also as callback of array_destroy_function()
 */
static void entry_destroy(entry_t *entry, int idx, void *user)
{
	entry->address->destroy(entry->address);
	free(entry->identity);
	free(entry);
}

/**
 * Destroy a pool
 */
static void pool_destroy(pool_t *pool)
{
	array_destroy_function(pool->entries, (void*)entry_destroy, NULL);
	pool->network->destroy(pool->network);
	free(pool->name);
	free(pool);
}

/**
 * Find a pool by its name, with the mutex held
 */
static pool_t *find_pool(private_rmobike_pool_t *this, char *name)
{
	enumerator_t *enumerator;
	pool_t *pool, *found = NULL;

	enumerator = this->pools->create_enumerator(this->pools);
	while (!found && enumerator->enumerate(enumerator, &pool))
	{
		found = streq(pool->name, name) ? pool : NULL;
	}
	enumerator->destroy(enumerator);
	return found;
}

/**
 * Find an address in a pool, with the mutex held
 */
static entry_t *find_entry(pool_t *pool, host_t *address, int *place)
{
	entry_t *entry;
	int i;

	for (i = 0; i < array_count(pool->entries); i++)
	{
		array_get(pool->entries, i, &entry);
		if (entry->address->ip_equals(entry->address, address))
		{
			*place = i;
			return entry;
		}
	}
	return NULL;
}

/**
 * Count the addresses that anybody may have, with the mutex held
 */
static u_int count_free(pool_t *pool)
{
	entry_t *entry;
	u_int count = 0;
	int i;

	for (i = 0; i < array_count(pool->entries); i++)
	{
		array_get(pool->entries, i, &entry);
		count += !entry->identity;
	}
	return count;
}

/**
 * How well an address suits a client
 */
typedef enum {
	/** it is another's */
	SUITS_NOT,
	/** anybody may have it */
	SUITS_FREE,
	/** this client had it, and no IKE_SA has it now */
	SUITS_OWN,
	/** this client had it and asks for it, or is redirected to us: it comes
	 *  with it from an IKE_SA that is replaced */
	SUITS_ASKED,
} suits_t;

/**
 * Rate an address.  An address that an IKE_SA has is given to who has the same
 * identity and knows the address: a second device of the same user does not.
 */
static suits_t suits(entry_t *entry, char *identity, host_t *requested,
					 bool redirected)
{
	if (!entry->identity)
	{
		return SUITS_FREE;
	}
	if (!streq(entry->identity, identity))
	{
		return SUITS_NOT;
	}
	if (entry->address->ip_equals(entry->address, requested) ||
		(entry->expected && redirected && !entry->online))
	{
		return SUITS_ASKED;
	}
	return entry->online || entry->held || entry->elsewhere ? SUITS_NOT
															: SUITS_OWN;
}

/**
 * Find the address that suits a client best, with the mutex held.
 *
 * @param ours			set to TRUE if there is a pool to look into
 */
static entry_t *choose(private_rmobike_pool_t *this, linked_list_t *pools,
					   char *identity, host_t *requested, bool redirected,
					   pool_t **from, bool *ours)
{
	enumerator_t *enumerator;
	entry_t *entry, *best = NULL;
	suits_t rate, most = SUITS_NOT;
	pool_t *pool;
	char *name;
	int i;

	*ours = FALSE;
	enumerator = pools->create_enumerator(pools);
	while (enumerator->enumerate(enumerator, &name))
	{
		pool = find_pool(this, name);
		if (!pool || pool->family != requested->get_family(requested))
		{
			continue;
		}
		if (!*ours)
		{
			*ours = TRUE;
			*from = pool;
		}
		for (i = 0; i < array_count(pool->entries) && most < SUITS_ASKED; i++)
		{
			array_get(pool->entries, i, &entry);
			rate = suits(entry, identity, requested, redirected);
			if (rate > most)
			{
				most = rate;
				best = entry;
				*from = pool;
			}
		}
	}
	enumerator->destroy(enumerator);
	return best;
}

/**
 * Write down what an event about an address tells, with the mutex held
 */
static void tell(told_t *told, pool_t *pool, entry_t *entry)
{
	snprintf(told->pool, sizeof(told->pool), "%s", pool->name);
	snprintf(told->identity, sizeof(told->identity), "%s",
			 entry && entry->identity ? entry->identity : "");
	told->address = entry ? entry->address->clone(entry->address) : NULL;
	told->online = entry ? entry->online : 0;
	told->free = count_free(pool);
}

/**
 * Raise an event about an address
 */
static void raise_told(private_rmobike_pool_t *this, char *event,
					   ike_sa_t *ike_sa, told_t *told)
{
	vici_builder_t *builder;

	builder = this->control->event(this->control,
								   ike_sa->get_unique_id(ike_sa));
	builder->add_kv(builder, "pool", "%s", told->pool);
	builder->add_kv(builder, "identity", "%s", told->identity);
	if (told->address)
	{
		builder->add_kv(builder, "address", "%H", told->address);
		builder->add_kv(builder, "online", "%u", told->online);
	}
	builder->add_kv(builder, "free", "%u", told->free);
	this->control->raise(this->control, event, 0, builder);
}

/**
 * Print the identity of a client, FALSE if it is too long to be kept
 */
static bool print_identity(ike_sa_t *ike_sa, char *str, size_t len)
{
	return snprintf(str, len, "%Y", ike_sa->get_other_eap_id(ike_sa)) < len;
}

/**
 * Check if a peer was redirected to us
 */
static bool was_redirected(private_rmobike_pool_t *this, ike_sa_t *ike_sa)
{
	rmobike_peer_t *peer;
	bool redirected = FALSE;

	peer = this->peers->lock(this->peers, ike_sa->get_unique_id(ike_sa), FALSE);
	if (peer)
	{
		redirected = peer->redirected;
		this->peers->unlock(this->peers);
	}
	return redirected;
}

METHOD(attribute_provider_t, acquire_address, host_t*,
	private_rmobike_pool_t *this, linked_list_t *pools, ike_sa_t *ike_sa,
	host_t *requested)
{
	char identity[MAX_IDENTITY + 1];
	host_t *address = NULL;
	pool_t *pool = NULL;
	entry_t *entry;
	told_t told;
	bool ours, redirected;

	if (!print_identity(ike_sa, identity, sizeof(identity)))
	{
		return NULL;
	}
	redirected = was_redirected(this, ike_sa);
	this->mutex->lock(this->mutex);
	entry = choose(this, pools, identity, requested, redirected, &pool, &ours);
	if (entry)
	{
		if (!entry->identity)
		{
			entry->identity = strdup(identity);
		}
		entry->online++;
		entry->expected = FALSE;
		address = entry->address->clone(entry->address);
	}
	if (ours)
	{
		tell(&told, pool, entry);
	}
	this->mutex->unlock(this->mutex);

	if (!ours)
	{
		return NULL;
	}
	if (address)
	{
		DBG1(DBG_CFG, "rmobike: '%s' gets %H of pool '%s'", identity, address,
			 told.pool);
	}
	else
	{
		snprintf(told.identity, sizeof(told.identity), "%s", identity);
		DBG1(DBG_CFG, "rmobike: pool '%s' has no address for '%s'", told.pool,
			 identity);
	}
	raise_told(this, address ? "address-acquired" : "pool-exhausted", ike_sa,
			   &told);
	DESTROY_IF(told.address);
	return address;
}

METHOD(attribute_provider_t, release_address, bool,
	private_rmobike_pool_t *this, linked_list_t *pools, host_t *address,
	ike_sa_t *ike_sa)
{
	enumerator_t *enumerator;
	entry_t *entry = NULL;
	pool_t *pool;
	told_t told;
	char *name;
	int place;

	this->mutex->lock(this->mutex);
	enumerator = pools->create_enumerator(pools);
	while (!entry && enumerator->enumerate(enumerator, &name))
	{
		pool = find_pool(this, name);
		entry = pool ? find_entry(pool, address, &place) : NULL;
	}
	enumerator->destroy(enumerator);
	if (entry)
	{
		/* an IKE_SA that came from another node never acquired it here; where
		 * another one has it still, we will be told so again */
		entry->online -= entry->online ? 1 : 0;
		entry->held = FALSE;
		tell(&told, pool, entry);
	}
	this->mutex->unlock(this->mutex);

	if (!entry)
	{
		return FALSE;
	}
	raise_told(this, "address-released", ike_sa, &told);
	told.address->destroy(told.address);
	return TRUE;
}

/**
 * Check the name of a pool
 */
static bool is_name(char *name)
{
	return name && *name && strlen(name) <= MAX_NAME;
}

CALLBACK(set_pool, vici_message_t*,
	private_rmobike_pool_t *this, char *name, u_int client,
	vici_message_t *request)
{
	char *pool_name = request->get_str(request, NULL, "pool"), *wrong = NULL;
	traffic_selector_t *network;
	pool_t *pool;

	network = rmobike_parse_network(request->get_str(request, "", "network"));
	if (!network || !is_name(pool_name))
	{
		DESTROY_IF(network);
		return this->control->refuse(this->control, "bad-request",
									 "pool and network are needed");
	}
	this->mutex->lock(this->mutex);
	pool = find_pool(this, pool_name);
	if (pool && !pool->network->equals(pool->network, network))
	{
		if (array_count(pool->entries))
		{
			wrong = "has addresses of another network";
		}
		else
		{
			this->pools->remove(this->pools, pool, NULL);
			pool_destroy(pool);
			pool = NULL;
		}
	}
	if (!pool && !wrong)
	{
		if (this->pools->get_count(this->pools) >= MAX_POOLS)
		{
			wrong = "is one too many";
		}
		else
		{
			INIT(pool,
				.name = strdup(pool_name),
				.network = network->clone(network),
				.family = network->get_type(network) == TS_IPV4_ADDR_RANGE
						  ? AF_INET : AF_INET6,
				.entries = array_create(0, 0),
			);
			this->pools->insert_last(this->pools, pool);
		}
	}
	this->mutex->unlock(this->mutex);
	network->destroy(network);
	if (wrong)
	{
		return this->control->refuse(this->control, "pool-refused",
									 "pool '%s' %s", pool_name, wrong);
	}
	return this->control->done(this->control, NULL);
}

/**
 * A command about addresses of a pool while it is carried out
 */
typedef struct {
	private_rmobike_pool_t *this;
	pool_t *pool;
	vici_builder_t *refused;
	/** told for the addresses of an add-addresses */
	bool elsewhere;
	bool held;
	bool expected;
	/** remove-addresses, otherwise add-addresses */
	bool remove;
} change_t;

/**
 * Put an address into the stock, or change what is known about it.
 *
 * FALSE if an IKE_SA has it and that must not be overruled.
 */
static bool add_address(change_t *change, host_t *address, char *identity)
{
	entry_t *entry;
	int place;

	if (!change->pool->network->includes(change->pool->network, address))
	{
		return FALSE;
	}
	entry = find_entry(change->pool, address, &place);
	if (!entry)
	{
		if (array_count(change->pool->entries) >= MAX_ADDRESSES)
		{
			return FALSE;
		}
		INIT(entry,
			.address = address->clone(address),
		);
		array_insert(change->pool->entries, ARRAY_TAIL, entry);
	}
	else if (entry->online &&
			 !(identity && entry->identity && streq(identity, entry->identity)))
	{
		return FALSE;
	}
	free(entry->identity);
	entry->identity = identity ? strdup(identity) : NULL;
	entry->elsewhere = identity && change->elsewhere;
	entry->held = identity && change->held;
	entry->expected = identity && change->expected;
	return TRUE;
}

/**
 * Take an address out of the stock, FALSE if an IKE_SA has it
 */
static bool remove_address(change_t *change, host_t *address)
{
	entry_t *entry;
	int place;

	entry = find_entry(change->pool, address, &place);
	if (!entry)
	{
		return TRUE;
	}
	if (entry->online)
	{
		return FALSE;
	}
	array_remove(change->pool->entries, place, NULL);
	entry_destroy(entry, 0, NULL);
	return TRUE;
}

/**
 * Change an address given as ADDRESS, or ADDRESS IDENTITY
 */
CALLBACK(change_address, bool,
	change_t *change, vici_message_t *message, char *name, chunk_t value)
{
	char str[64 + MAX_IDENTITY + 1] = "", *identity;
	host_t *address;
	bool done;

	if (!streq(name, "addresses"))
	{
		return TRUE;
	}
	if (!value.len || value.len >= sizeof(str))
	{
		return FALSE;
	}
	memcpy(str, value.ptr, value.len);
	identity = strchr(str, ' ');
	if (identity)
	{
		*identity++ = '\0';
	}
	address = rmobike_parse_address(str);
	if (!address || (identity && (!*identity || change->remove ||
								  strlen(identity) > MAX_IDENTITY)))
	{
		DESTROY_IF(address);
		return FALSE;
	}
	done = change->remove ? remove_address(change, address)
						  : add_address(change, address, identity);
	if (!done)
	{
		change->refused->add_li(change->refused, "%H", address);
	}
	address->destroy(address);
	return TRUE;
}

/**
 * Change the addresses of a request
 */
static vici_message_t *change_addresses(private_rmobike_pool_t *this,
										vici_message_t *request, bool remove)
{
	change_t change = {
		.this = this,
		.remove = remove,
		.elsewhere = request->get_bool(request, FALSE, "elsewhere"),
		.held = request->get_bool(request, FALSE, "held"),
		.expected = request->get_bool(request, FALSE, "expected"),
	};
	vici_builder_t *builder;
	u_int free = 0;
	bool good = FALSE;

	builder = change.refused = this->control->builder(this->control);
	builder->begin_list(builder, "refused");
	this->mutex->lock(this->mutex);
	change.pool = find_pool(this, request->get_str(request, "", "pool"));
	if (change.pool)
	{
		good = request->parse(request, NULL, NULL, NULL, change_address,
							  &change);
		free = count_free(change.pool);
	}
	this->mutex->unlock(this->mutex);
	builder->end_list(builder);
	if (!good)
	{
		builder->destroy(builder);
		return this->control->refuse(this->control,
						change.pool ? "bad-request" : "unknown-pool",
						change.pool ? "addresses are ADDRESS or ADDRESS "
						"IDENTITY; those before the bad one are done"
						: "set-pool comes first");
	}
	builder->add_kv(builder, "free", "%u", free);
	return this->control->done(this->control, builder);
}

CALLBACK(add_addresses, vici_message_t*,
	private_rmobike_pool_t *this, char *name, u_int client,
	vici_message_t *request)
{
	return change_addresses(this, request, FALSE);
}

CALLBACK(remove_addresses, vici_message_t*,
	private_rmobike_pool_t *this, char *name, u_int client,
	vici_message_t *request)
{
	return change_addresses(this, request, TRUE);
}

/**
 * Describe the addresses of a pool, with the mutex held
 */
static void describe(private_rmobike_pool_t *this, pool_t *pool,
					 linked_list_t *messages)
{
	vici_builder_t *builder;
	entry_t *entry;
	int i;

	for (i = 0; i < array_count(pool->entries); i++)
	{
		array_get(pool->entries, i, &entry);
		builder = this->control->builder(this->control);
		builder->add_kv(builder, "pool", "%s", pool->name);
		builder->add_kv(builder, "address", "%H", entry->address);
		builder->add_kv(builder, "identity", "%s", entry->identity ?: "");
		builder->add_kv(builder, "online", "%u", entry->online);
		builder->add_kv(builder, "held", entry->held ? "yes" : "no");
		builder->add_kv(builder, "elsewhere", entry->elsewhere ? "yes" : "no");
		builder->add_kv(builder, "expected", entry->expected ? "yes" : "no");
		messages->insert_last(messages, builder);
	}
}

CALLBACK(list_addresses, vici_message_t*,
	private_rmobike_pool_t *this, char *name, u_int client,
	vici_message_t *request)
{
	char *wanted = request->get_str(request, NULL, "pool");
	linked_list_t *messages = linked_list_create();
	enumerator_t *enumerator;
	vici_builder_t *builder;
	pool_t *pool;

	this->mutex->lock(this->mutex);
	enumerator = this->pools->create_enumerator(this->pools);
	while (enumerator->enumerate(enumerator, &pool))
	{
		if (!wanted || streq(wanted, pool->name))
		{
			describe(this, pool, messages);
		}
	}
	enumerator->destroy(enumerator);
	this->mutex->unlock(this->mutex);

	while (messages->remove_first(messages, (void**)&builder) == SUCCESS)
	{
		this->control->raise(this->control, "list-address", client, builder);
	}
	messages->destroy(messages);
	return this->control->done(this->control, NULL);
}

METHOD(rmobike_pool_t, destroy, void,
	private_rmobike_pool_t *this)
{
	this->pools->destroy_function(this->pools, (void*)pool_destroy);
	this->mutex->destroy(this->mutex);
	free(this);
}

/*
 * Described in header
 */
rmobike_pool_t *rmobike_pool_create(rmobike_control_t *control,
									rmobike_peers_t *peers)
{
	private_rmobike_pool_t *this;

	INIT(this,
		.public = {
			.provider = {
				.acquire_address = _acquire_address,
				.release_address = _release_address,
				.create_attribute_enumerator = enumerator_create_empty,
			},
			.destroy = _destroy,
		},
		.control = control,
		.peers = peers,
		.pools = linked_list_create(),
		.mutex = mutex_create(MUTEX_TYPE_DEFAULT),
	);

	control->add_event(control, "address-acquired");
	control->add_event(control, "address-released");
	control->add_event(control, "pool-exhausted");
	control->add_event(control, "list-address");
	control->add_command(control, "set-pool", set_pool, this);
	control->add_command(control, "add-addresses", add_addresses, this);
	control->add_command(control, "remove-addresses", remove_addresses, this);
	control->add_command(control, "list-addresses", list_addresses, this);

	return &this->public;
}
