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


#include "rmobike_xfrm.h"

#include <errno.h>
#include <net/if.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/xfrm.h>

#include <daemon.h>
#include <collections/array.h>

/**
 * Most that the kernel sends in one message
 */
#define REPLY_SIZE 8192

/**
 * Seconds to wait for the kernel, which answers at once
 */
#define DEADLINE 2

typedef struct private_rmobike_xfrm_t private_rmobike_xfrm_t;

/**
 * Private data of an rmobike_xfrm_t object.
 */
struct private_rmobike_xfrm_t {

	/**
	 * Public interface
	 */
	rmobike_xfrm_t public;

	/**
	 * Requests, request_t
	 */
	array_t *requests;

	/**
	 * Number of the first request of the list in messages
	 */
	uint32_t first;

	/**
	 * Netlink socket
	 */
	int fd;
};

/**
 * A request, and what came of it
 */
typedef struct {

	/** netlink message */
	chunk_t message;

	/** what the kernel sent because of it */
	chunk_t reply;

	/** the kernel told how it ended */
	bool over;

	/** how it ended, 0 if well */
	int error;
} request_t;

/**
 * Wipe a request
 */
static void request_clear(request_t *request, int idx, void *user)
{
	chunk_clear(&request->message);
	chunk_clear(&request->reply);
}

/**
 * Get a request of a list
 */
static request_t *get_request(private_rmobike_xfrm_t *this, u_int number)
{
	request_t *request = NULL;

	if (number < array_count(this->requests))
	{
		array_get(this->requests, number, &request);
	}
	return request;
}

METHOD(rmobike_xfrm_t, add, u_int,
	private_rmobike_xfrm_t *this, chunk_t message)
{
	struct nlmsghdr *hdr = (struct nlmsghdr*)message.ptr;
	u_int number = array_count(this->requests);
	request_t *request;

	INIT(request,
		.message = message,
	);
	hdr->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	hdr->nlmsg_seq = this->first + number;
	array_insert(this->requests, ARRAY_TAIL, request);
	return number;
}

/**
 * Send all requests
 */
static bool send_all(private_rmobike_xfrm_t *this)
{
	struct sockaddr_nl addr = {
		.nl_family = AF_NETLINK,
	};
	enumerator_t *enumerator;
	request_t *request;
	chunk_t all = chunk_empty, pos;
	ssize_t len;

	enumerator = array_create_enumerator(this->requests);
	while (enumerator->enumerate(enumerator, &request))
	{
		all.len += NLMSG_ALIGN(request->message.len);
	}
	enumerator->destroy(enumerator);
	all = chunk_alloc(all.len);
	memset(all.ptr, 0, all.len);
	pos = all;
	enumerator = array_create_enumerator(this->requests);
	while (enumerator->enumerate(enumerator, &request))
	{
		memcpy(pos.ptr, request->message.ptr, request->message.len);
		pos = chunk_skip(pos, NLMSG_ALIGN(request->message.len));
	}
	enumerator->destroy(enumerator);
	do
	{
		len = sendto(this->fd, all.ptr, all.len, 0, (struct sockaddr*)&addr,
					 sizeof(addr));
	}
	while (len == -1 && errno == EINTR);
	chunk_clear(&all);
	return len != -1;
}

/**
 * Take one message of the kernel
 */
static void take(private_rmobike_xfrm_t *this, struct nlmsghdr *hdr,
				 u_int *missing)
{
	struct nlmsgerr *err;
	request_t *request;

	request = get_request(this, hdr->nlmsg_seq - this->first);
	if (!request || request->over)
	{
		return;
	}
	if (hdr->nlmsg_type != NLMSG_ERROR)
	{
		chunk_clear(&request->reply);
		request->reply = chunk_clone(chunk_create((u_char*)hdr,
												  hdr->nlmsg_len));
	}
	else if (hdr->nlmsg_len >= NLMSG_LENGTH(sizeof(*err)))
	{
		err = NLMSG_DATA(hdr);
		request->error = -err->error;
		request->over = TRUE;
		(*missing)--;
	}
}

/**
 * Receive what the kernel sent, once
 */
static bool receive(private_rmobike_xfrm_t *this, u_int *missing)
{
	union {
		struct nlmsghdr hdr;
		u_char bytes[REPLY_SIZE];
	} buffer;
	struct nlmsghdr *hdr;
	ssize_t len, left;

	do
	{
		len = recv(this->fd, &buffer, sizeof(buffer), 0);
	}
	while (len == -1 && errno == EINTR);
	if (len == -1)
	{
		return FALSE;
	}
	left = len;
	for (hdr = &buffer.hdr; NLMSG_OK(hdr, left); hdr = NLMSG_NEXT(hdr, left))
	{
		take(this, hdr, missing);
	}
	memwipe(&buffer, len);
	return TRUE;
}

METHOD(rmobike_xfrm_t, run, bool,
	private_rmobike_xfrm_t *this)
{
	enumerator_t *enumerator;
	request_t *request;
	u_int missing = array_count(this->requests);
	bool good = TRUE;

	if (!send_all(this))
	{
		return FALSE;
	}
	while (missing && receive(this, &missing))
	{
		continue;
	}
	enumerator = array_create_enumerator(this->requests);
	while (enumerator->enumerate(enumerator, &request))
	{
		good = good && request->over && !request->error;
	}
	enumerator->destroy(enumerator);
	return good;
}

METHOD(rmobike_xfrm_t, get_reply, chunk_t,
	private_rmobike_xfrm_t *this, u_int number)
{
	request_t *request = get_request(this, number);

	return request ? request->reply : chunk_empty;
}

METHOD(rmobike_xfrm_t, is_done, bool,
	private_rmobike_xfrm_t *this, u_int number)
{
	request_t *request = get_request(this, number);

	return request && request->over && !request->error;
}

METHOD(rmobike_xfrm_t, reset, void,
	private_rmobike_xfrm_t *this)
{
	request_t *request;

	/* what still comes for these is not taken for later ones */
	this->first += array_count(this->requests);
	while (array_remove(this->requests, ARRAY_TAIL, &request))
	{
		request_clear(request, 0, NULL);
		free(request);
	}
}

METHOD(rmobike_xfrm_t, destroy, void,
	private_rmobike_xfrm_t *this)
{
	reset(this);
	array_destroy(this->requests);
	close(this->fd);
	free(this);
}

/*
 * Described in header
 */
rmobike_xfrm_t *rmobike_xfrm_create()
{
	private_rmobike_xfrm_t *this;
	struct sockaddr_nl addr = {
		.nl_family = AF_NETLINK,
	};
	struct timeval deadline = {
		.tv_sec = DEADLINE,
	};
	int fd;

	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_XFRM);
	if (fd == -1)
	{
		return NULL;
	}
	if (bind(fd, (struct sockaddr*)&addr, sizeof(addr)) != 0 ||
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &deadline,
				   sizeof(deadline)) != 0)
	{
		close(fd);
		return NULL;
	}

	INIT(this,
		.public = {
			.add = _add,
			.run = _run,
			.get_reply = _get_reply,
			.is_done = _is_done,
			.reset = _reset,
			.destroy = _destroy,
		},
		.requests = array_create(0, 0),
		.first = 1,
		.fd = fd,
	);
	return &this->public;
}

/**
 * Create a message with room for a body and attributes of the given length
 */
static chunk_t create_message(uint16_t type, size_t body, size_t attributes)
{
	struct nlmsghdr *hdr;
	chunk_t message;

	message = chunk_alloc(NLMSG_SPACE(body) + attributes);
	memset(message.ptr, 0, message.len);
	hdr = (struct nlmsghdr*)message.ptr;
	hdr->nlmsg_type = type;
	hdr->nlmsg_len = NLMSG_LENGTH(body);
	return message;
}

/**
 * Append an attribute to a message that has room for it
 */
static void append(chunk_t message, uint16_t type, void *data, size_t len)
{
	struct nlmsghdr *hdr = (struct nlmsghdr*)message.ptr;
	struct rtattr *rta;

	rta = (struct rtattr*)(message.ptr + NLMSG_ALIGN(hdr->nlmsg_len));
	rta->rta_type = type;
	rta->rta_len = RTA_LENGTH(len);
	memcpy(RTA_DATA(rta), data, len);
	hdr->nlmsg_len = NLMSG_ALIGN(hdr->nlmsg_len) + RTA_LENGTH(len);
}

/**
 * Find an attribute of a message, of at least the given length
 */
static void *find(chunk_t message, size_t body, uint16_t type, size_t len)
{
	struct nlmsghdr *hdr = (struct nlmsghdr*)message.ptr;
	struct rtattr *rta;
	ssize_t left;

	if (message.len < NLMSG_SPACE(body) || hdr->nlmsg_len > message.len)
	{
		return NULL;
	}
	rta = (struct rtattr*)(message.ptr + NLMSG_SPACE(body));
	left = hdr->nlmsg_len - NLMSG_SPACE(body);
	for (; RTA_OK(rta, left); rta = RTA_NEXT(rta, left))
	{
		if (rta->rta_type == type && RTA_PAYLOAD(rta) >= len)
		{
			return RTA_DATA(rta);
		}
	}
	return NULL;
}

/**
 * Find an attribute of an SA
 */
static void *find_sa(chunk_t sa, uint16_t type, size_t len)
{
	return find(sa, sizeof(struct xfrm_usersa_info), type, len);
}

/**
 * Get the extended replay state of an SA, NULL if it has none
 */
static struct xfrm_replay_state_esn *find_esn(chunk_t sa)
{
	struct xfrm_replay_state_esn *esn;

	esn = find_sa(sa, XFRMA_REPLAY_ESN_VAL, sizeof(*esn));
	return esn && find_sa(sa, XFRMA_REPLAY_ESN_VAL, sizeof(*esn) +
						  esn->bmp_len * sizeof(uint32_t)) ? esn : NULL;
}

/**
 * Get the replay state of an SA, NULL if it has none
 */
static struct xfrm_replay_state *find_replay(chunk_t sa)
{
	return find_sa(sa, XFRMA_REPLAY_VAL, sizeof(struct xfrm_replay_state));
}

/**
 * Copy the address of a host
 */
static void put_host(xfrm_address_t *address, host_t *host)
{
	chunk_t chunk = host->get_address(host);

	memset(address, 0, sizeof(*address));
	memcpy(address, chunk.ptr, min(chunk.len, sizeof(*address)));
}

/**
 * Check if an address is that of a host
 */
static bool is_host(xfrm_address_t *address, host_t *host)
{
	chunk_t chunk = host->get_address(host);

	return memeq(address, chunk.ptr, min(chunk.len, sizeof(*address)));
}

/**
 * Append what distinguishes SAs and policies that are the same otherwise
 */
static void append_marks(chunk_t message, mark_t mark, uint32_t if_id)
{
	struct xfrm_mark value = {
		.v = mark.value,
		.m = mark.mask,
	};

	if (mark.value | mark.mask)
	{
		append(message, XFRMA_MARK, &value, sizeof(value));
	}
	if (if_id)
	{
		append(message, XFRMA_IF_ID, &if_id, sizeof(if_id));
	}
}

/**
 * Room for the above
 */
#define MARKS_SPACE (RTA_SPACE(sizeof(struct xfrm_mark)) + \
					 RTA_SPACE(sizeof(uint32_t)))

/**
 * Create a request about an SA
 */
static chunk_t about_sa(uint16_t type, kernel_ipsec_sa_id_t *id)
{
	struct xfrm_usersa_id *sa;
	chunk_t message;

	message = create_message(type, sizeof(*sa), MARKS_SPACE);
	sa = NLMSG_DATA((struct nlmsghdr*)message.ptr);
	put_host(&sa->daddr, id->dst);
	sa->spi = id->spi;
	sa->family = id->dst->get_family(id->dst);
	sa->proto = id->proto;
	append_marks(message, id->mark, id->if_id);
	message.len = ((struct nlmsghdr*)message.ptr)->nlmsg_len;
	return message;
}

/*
 * Described in header
 */
chunk_t rmobike_xfrm_get_sa(kernel_ipsec_sa_id_t *id)
{
	return about_sa(XFRM_MSG_GETSA, id);
}

/*
 * Described in header
 */
chunk_t rmobike_xfrm_del_sa(kernel_ipsec_sa_id_t *id)
{
	return about_sa(XFRM_MSG_DELSA, id);
}

/**
 * Get the body of a message about an SA
 */
static struct xfrm_usersa_info *sa_of(chunk_t message)
{
	return NLMSG_DATA((struct nlmsghdr*)message.ptr);
}

/*
 * Described in header
 */
bool rmobike_xfrm_is_plain(chunk_t sa, bool encap)
{
	return sa.len >= NLMSG_SPACE(sizeof(struct xfrm_usersa_info)) &&
		   sa_of(sa)->mode == XFRM_MODE_TUNNEL &&
		   !find_sa(sa, XFRMA_OFFLOAD_DEV, 0) &&
		   !find_sa(sa, XFRMA_ENCAP, 0) == !encap &&
		   (find_esn(sa) || find_replay(sa));
}

/*
 * Described in header
 */
chunk_t rmobike_xfrm_copy_sa(chunk_t sa, host_t *src, host_t *dst)
{
	struct xfrm_usersa_info *info;
	struct xfrm_encap_tmpl *encap;
	struct nlmsghdr *hdr;
	chunk_t message;

	message = chunk_alloc(NLMSG_ALIGN(sa.len) +
						  RTA_SPACE(sizeof(struct xfrm_lifetime_cur)));
	memset(message.ptr, 0, message.len);
	memcpy(message.ptr, sa.ptr, sa.len);
	hdr = (struct nlmsghdr*)message.ptr;
	hdr->nlmsg_type = XFRM_MSG_NEWSA;
	hdr->nlmsg_flags = 0;
	hdr->nlmsg_pid = 0;
	info = sa_of(message);
	info->family = dst->get_family(dst);
	put_host(&info->saddr, src);
	put_host(&info->id.daddr, dst);
	encap = find_sa(message, XFRMA_ENCAP, sizeof(*encap));
	if (encap)
	{
		encap->encap_sport = htons(src->get_port(src));
		encap->encap_dport = htons(dst->get_port(dst));
	}
	/* the kernel ignores the use told in the body */
	append(message, XFRMA_LTIME_VAL, &info->curlft, sizeof(info->curlft));
	return message;
}

/*
 * Described in header
 */
uint32_t rmobike_xfrm_refresh(chunk_t copy, chunk_t sa)
{
	struct xfrm_replay_state_esn *esn = find_esn(copy), *from_esn = find_esn(sa);
	struct xfrm_replay_state *replay = find_replay(copy);
	struct xfrm_replay_state *from = find_replay(sa);
	uint32_t sent = 0;
	void *usage;

	if (esn && from_esn && esn->bmp_len == from_esn->bmp_len)
	{
		sent = from_esn->oseq - esn->oseq;
		memcpy(esn, from_esn, sizeof(*esn) + esn->bmp_len * sizeof(uint32_t));
	}
	else if (!esn && replay && from)
	{
		sent = from->oseq - replay->oseq;
		*replay = *from;
	}
	usage = find_sa(copy, XFRMA_LTIME_VAL, sizeof(struct xfrm_lifetime_cur));
	if (usage)
	{
		memcpy(usage, &sa_of(sa)->curlft, sizeof(struct xfrm_lifetime_cur));
	}
	return min(sent, UINT16_MAX);
}

/*
 * Described in header
 */
void rmobike_xfrm_advance(chunk_t copy, uint32_t gap)
{
	struct xfrm_replay_state_esn *esn = find_esn(copy);
	struct xfrm_replay_state *replay = find_replay(copy);

	if (esn)
	{
		esn->oseq += gap;
		esn->oseq_hi += esn->oseq < gap ? 1 : 0;
	}
	else if (replay && replay->oseq <= UINT32_MAX - gap)
	{
		replay->oseq += gap;
	}
}

/**
 * Highest sequence number received
 */
static uint64_t highest(struct xfrm_replay_state_esn *esn)
{
	return ((uint64_t)esn->seq_hi << 32) | esn->seq;
}

/**
 * Word and bit of a sequence number in the window, which the kernel counts from
 * the lower half of the highest one
 */
static uint32_t *locate(struct xfrm_replay_state_esn *esn, uint64_t seq,
						uint32_t *bit)
{
	uint32_t behind = highest(esn) - seq, pos;

	pos = (esn->seq - 1) % esn->replay_window + esn->replay_window - behind;
	pos %= esn->replay_window;
	*bit = 1U << (pos % 32);
	return &esn->bmp[pos / 32];
}

/**
 * Merge extended replay states, of which the first gets changed
 */
static void merge_esn(struct xfrm_replay_state_esn *esn,
					  struct xfrm_replay_state_esn *other)
{
	struct xfrm_replay_state_esn *low = other;
	uint64_t seq, top, bottom;
	uint32_t bit, *word;
	chunk_t copy = chunk_empty;

	if (esn->bmp_len != other->bmp_len || !esn->replay_window ||
		esn->replay_window != other->replay_window ||
		esn->replay_window > esn->bmp_len * 32)
	{
		return;
	}
	if (highest(other) > highest(esn))
	{
		copy = chunk_clone(chunk_create((u_char*)esn,
								sizeof(*esn) + esn->bmp_len * sizeof(uint32_t)));
		low = (struct xfrm_replay_state_esn*)copy.ptr;
		esn->seq = other->seq;
		esn->seq_hi = other->seq_hi;
		memcpy(esn->bmp, other->bmp, esn->bmp_len * sizeof(uint32_t));
	}
	/* of what the one that lags behind got, what the other could still get */
	top = highest(esn);
	bottom = top > esn->replay_window ? top - esn->replay_window : 0;
	for (seq = highest(low);
		 seq > bottom && highest(low) - seq < esn->replay_window; seq--)
	{
		word = locate(low, seq, &bit);
		if (*word & bit)
		{
			word = locate(esn, seq, &bit);
			*word |= bit;
		}
	}
	chunk_free(&copy);
}

/**
 * Merge replay states, of which the first gets changed
 */
static void merge(struct xfrm_replay_state *replay,
				  struct xfrm_replay_state *other)
{
	uint32_t seq = max(replay->seq, other->seq);
	uint32_t lag = seq - replay->seq, other_lag = seq - other->seq;

	replay->bitmap = (lag < 32 ? replay->bitmap << lag : 0) |
					 (other_lag < 32 ? other->bitmap << other_lag : 0);
	replay->seq = seq;
}

/*
 * Described in header
 */
void rmobike_xfrm_merge(chunk_t copy, chunk_t other)
{
	struct xfrm_replay_state_esn *esn = find_esn(copy);
	struct xfrm_replay_state_esn *other_esn = find_esn(other);
	struct xfrm_replay_state *replay = find_replay(copy);
	struct xfrm_replay_state *other_replay = find_replay(other);

	if (esn && other_esn)
	{
		merge_esn(esn, other_esn);
	}
	else if (!esn && replay && other_replay)
	{
		merge(replay, other_replay);
	}
}

/**
 * Change what a copy has counted; attributes are not aligned to its type
 */
static void add_usage(chunk_t copy, uint64_t bytes, uint64_t packets)
{
	struct xfrm_lifetime_cur usage;
	void *attribute;

	attribute = find_sa(copy, XFRMA_LTIME_VAL, sizeof(usage));
	if (attribute)
	{
		memcpy(&usage, attribute, sizeof(usage));
		usage.bytes += bytes;
		usage.packets += packets;
		memcpy(attribute, &usage, sizeof(usage));
	}
}

/*
 * Described in header
 */
void rmobike_xfrm_add_usage(chunk_t copy, chunk_t other)
{
	add_usage(copy, sa_of(other)->curlft.bytes, sa_of(other)->curlft.packets);
}

/*
 * Described in header
 */
void rmobike_xfrm_reset_usage(chunk_t copy)
{
	struct xfrm_lifetime_cur *usage = &sa_of(copy)->curlft;

	add_usage(copy, -usage->bytes, -usage->packets);
}

/**
 * Convert the network of a traffic selector
 */
static void put_network(traffic_selector_t *ts, xfrm_address_t *address,
						uint8_t *prefixlen)
{
	host_t *network;

	ts->to_subnet(ts, &network, prefixlen);
	put_host(address, network);
	network->destroy(network);
}

/**
 * Convert the ports of a traffic selector: the bits that all of them share
 */
static void put_ports(traffic_selector_t *ts, uint16_t *port, uint16_t *mask)
{
	uint16_t from = ts->get_from_port(ts), shared = UINT16_MAX;

	while ((from ^ ts->get_to_port(ts)) & shared)
	{
		shared <<= 1;
	}
	*port = htons(from & shared);
	*mask = htons(shared);
}

/*
 * Described in header
 */
chunk_t rmobike_xfrm_get_policy(kernel_ipsec_policy_id_t *id)
{
	struct xfrm_userpolicy_id *policy;
	struct xfrm_selector *sel;
	chunk_t message;
	uint16_t port;

	message = create_message(XFRM_MSG_GETPOLICY, sizeof(*policy), MARKS_SPACE);
	policy = NLMSG_DATA((struct nlmsghdr*)message.ptr);
	policy->dir = id->dir;
	sel = &policy->sel;
	sel->family = id->src_ts->get_type(id->src_ts) == TS_IPV4_ADDR_RANGE ?
				  AF_INET : AF_INET6;
	sel->proto = max(id->src_ts->get_protocol(id->src_ts),
					 id->dst_ts->get_protocol(id->dst_ts));
	sel->ifindex = id->interface ? if_nametoindex(id->interface) : 0;
	put_network(id->src_ts, &sel->saddr, &sel->prefixlen_s);
	put_network(id->dst_ts, &sel->daddr, &sel->prefixlen_d);
	put_ports(id->src_ts, &sel->sport, &sel->sport_mask);
	put_ports(id->dst_ts, &sel->dport, &sel->dport_mask);
	if ((sel->proto == IPPROTO_ICMP || sel->proto == IPPROTO_ICMPV6) &&
		(sel->sport || sel->dport))
	{	/* the kernel has the type as source, the code as destination port */
		port = ntohs(max(sel->sport, sel->dport));
		sel->sport = htons(traffic_selector_icmp_type(port));
		sel->sport_mask = sel->sport ? UINT16_MAX : 0;
		sel->dport = htons(traffic_selector_icmp_code(port));
		sel->dport_mask = sel->dport ? UINT16_MAX : 0;
	}
	append_marks(message, id->mark, id->if_id);
	message.len = ((struct nlmsghdr*)message.ptr)->nlmsg_len;
	return message;
}

/**
 * Get the only template of a policy, NULL if it has none or several
 */
static struct xfrm_user_tmpl *template_of(chunk_t policy)
{
	size_t body = sizeof(struct xfrm_userpolicy_info);
	struct xfrm_user_tmpl *tmpl;

	tmpl = find(policy, body, XFRMA_TMPL, sizeof(*tmpl));
	return tmpl && !find(policy, body, XFRMA_TMPL, 2 * sizeof(*tmpl)) ? tmpl
																	   : NULL;
}

/*
 * Described in header
 */
bool rmobike_xfrm_uses(chunk_t policy, kernel_ipsec_sa_id_t *id)
{
	struct xfrm_user_tmpl *tmpl = template_of(policy);

	return tmpl && tmpl->id.proto == id->proto &&
		   tmpl->mode == XFRM_MODE_TUNNEL &&
		   tmpl->family == id->dst->get_family(id->dst) &&
		   (!tmpl->id.spi || tmpl->id.spi == id->spi) &&
		   is_host(&tmpl->saddr, id->src) && is_host(&tmpl->id.daddr, id->dst);
}

/*
 * Described in header
 */
chunk_t rmobike_xfrm_restore(chunk_t policy)
{
	struct nlmsghdr *hdr;
	chunk_t message;

	message = chunk_clone(policy);
	hdr = (struct nlmsghdr*)message.ptr;
	hdr->nlmsg_type = XFRM_MSG_UPDPOLICY;
	hdr->nlmsg_flags = 0;
	hdr->nlmsg_pid = 0;
	return message;
}

/*
 * Described in header
 */
chunk_t rmobike_xfrm_block(chunk_t policy)
{
	struct xfrm_userpolicy_info *info;
	chunk_t message;

	message = rmobike_xfrm_restore(policy);
	info = NLMSG_DATA((struct nlmsghdr*)message.ptr);
	info->action = XFRM_POLICY_BLOCK;
	return message;
}

/*
 * Described in header
 */
chunk_t rmobike_xfrm_redirect(chunk_t policy, host_t *src, host_t *dst)
{
	struct xfrm_user_tmpl *tmpl;
	chunk_t message;

	message = rmobike_xfrm_restore(policy);
	tmpl = template_of(message);
	tmpl->family = dst->get_family(dst);
	put_host(&tmpl->saddr, src);
	put_host(&tmpl->id.daddr, dst);
	return message;
}
