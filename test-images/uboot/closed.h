
/* What the stored environment may say: the variables of the scheme boot-order, and otad's two. */
#define CONFIG_ENV_FLAGS_LIST_STATIC "BOOT_ORDER:sw,BOOT_A_LEFT:sw,BOOT_B_LEFT:sw,otad_trial:sw,otad_env:sw"
