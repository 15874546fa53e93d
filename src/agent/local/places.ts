/** Name of the socket in an agent's state directory on which it tells how it is. */
export const localSocket = "local.sock";
