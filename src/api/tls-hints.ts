const wrongAuthority =
  "the kubeconfig's certificate-authority did not sign the server's certificate: put the cluster's CA there";

/** What to do about OpenSSL's and Node's error codes: their own words are for those who know them. */
export const tlsHints: Readonly<Record<string, string>> = {
  SELF_SIGNED_CERT_IN_CHAIN: wrongAuthority,
  DEPTH_ZERO_SELF_SIGNED_CERT: wrongAuthority,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: wrongAuthority,
  UNABLE_TO_GET_ISSUER_CERT: wrongAuthority,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: wrongAuthority,
  CERT_SIGNATURE_FAILURE: wrongAuthority,
  CERT_HAS_EXPIRED: "the server's certificate (or this machine's clock) is out of date",
  CERT_NOT_YET_VALID: "the server's certificate (or this machine's clock) is out of date",
  ERR_TLS_CERT_ALTNAME_INVALID:
    "set the kubeconfig's server, or tls-server-name, to a name in the server's certificate",
  ERR_OSSL_X509_KEY_VALUES_MISMATCH:
    "the kubeconfig's client-key does not belong to its client-certificate: correct one of them",
};
