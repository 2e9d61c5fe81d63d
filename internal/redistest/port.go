package redistest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
)

// Servers listen below the ports which systems give to outgoing connections
// (32768 and up on Linux), so that no connection takes the port of a server
// which is down for a restart. A node of a cluster also listens 10000 higher,
// which has to stay in that range too.
const (
	firstPort  = 12000
	portCount  = 10000
	busPortGap = 10000
)

// portSeq gives each server of this process another port. It starts at random,
// because other test binaries run at the same time.
var portSeq atomic.Uint32

func init() {
	portSeq.Store(rand.Uint32N(portCount))
}

func freePort() int {
	for {
		port := firstPort + int(portSeq.Add(1)%portCount)
		if free(port) && free(port+busPortGap) {
			return port
		}
	}
}

func free(port int) bool {
	l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", host, port))
	if err != nil {
		return false
	}
	return l.Close() == nil
}
