
/* The compiled-in environment first, the stored one beside it; saves go to the card. */
#include <env_internal.h>

enum env_location env_get_location(enum env_operation op, int prio)
{
	if (op == ENVOP_SAVE || op == ENVOP_ERASE)
		return ENVL_MMC;
	switch (prio) {
	case 0:
		return ENVL_NOWHERE;
	case 1:
		return ENVL_MMC;
	default:
		return ENVL_UNKNOWN;
	}
}
